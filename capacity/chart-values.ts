// A plan as values of the chart.

import { stringify } from 'yaml';
import { choices } from './constants.ts';
import type { Plan } from './model.ts';

/** The values file that installs a plan. Where it needs a Redis Cluster, its address is left to be filled in. */
export function chartValues(plan: Plan): string {
  const cluster = plan.redisMasters > 1;
  const values = {
    maxConnections: plan.maxConnections,
    resources: {
      requests: {
        cpu: `${Math.ceil(plan.podCpuCores * 10) * 100}m`,
        memory: `${plan.podMemoryMib}Mi`,
      },
      limits: { memory: `${Math.ceil(plan.podMemoryMib * 1.3)}Mi` },
    },
    autoscaling: {
      enabled: true,
      minReplicas: plan.pods,
      maxReplicas: plan.pods * 2,
      connections: {
        enabled: true,
        target: Math.floor(plan.maxConnections * choices.targetShare.value),
      },
    },
    ...(cluster
      ? {
          redis: { enabled: false },
          externalRedis: { mode: 'cluster', url: 'rediss://YOUR-CLUSTER:6379' },
        }
      : {}),
  };
  return stringify(values);
}
