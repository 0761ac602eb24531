// Observations of the operator, written down for tests: an even, quiet workload, and whatever a test makes of it.

import type { Answer, Observation, Pod } from '../src/operator/observation.ts';
import { decodeSpec, type Policy } from '../src/operator/policy.ts';

/** When these observations are made. */
export const NOW_MS = Date.UTC(2026, 10, 22, 12);

/** A policy with all defaults, but for what is given. @throws where the spec is invalid. */
export function aPolicy(spec: Readonly<Record<string, unknown>> = {}, fields: Partial<Policy> = {}): Policy {
  const decoded = decodeSpec({ targetRef: { kind: 'Deployment', name: 'gateway' }, ...spec });
  if ('fault' in decoded) throw new Error(decoded.fault);
  return {
    namespace: 'default',
    name: 'gateway',
    uid: 'policy',
    generation: 1,
    createdAtMs: NOW_MS - 86_400_000,
    spec: decoded.spec,
    status: undefined,
    ...fields,
  };
}

/** An answer of the admin contract. */
export function anAnswer(connections: number, fields: Partial<Answer> = {}): Answer {
  return {
    atMs: NOW_MS,
    connections,
    maxConnections: 20_000,
    phase: 'serving',
    startedAtMs: NOW_MS - 3_600_000,
    accepted: undefined, // growing connections tell as well that the load balancer reaches the pod
    refused: 0,
    refusedMoving: 0,
    deliveries: 0,
    cpuSeconds: 0,
    movable: connections,
    immovable: 0,
    drainSeconds: 30,
    ceiling: null,
    shed: { asked: 0, moved: 0, stayed: 0, outstanding: 0 },
    ...fields,
  };
}

/** A ready pod that answers with so many connections. */
export function aPod(
  name: string,
  connections: number,
  fields: Partial<Pod> = {},
  answer: Partial<Answer> = {},
): Pod {
  return {
    name,
    uid: `uid-${name}`,
    ready: true,
    deleting: false,
    createdAtMs: NOW_MS - 3_600_000,
    deletionCost: undefined,
    heard: { known: true, answer: anAnswer(connections, answer) },
    ...fields,
  };
}

/** A ready pod that has not answered for so many seconds. */
export function aSilentPod(
  name: string,
  seconds: number,
  fault: Extract<Pod['heard'], { known: false }>['fault'] = 'unreachable',
  last?: Answer,
): Pod {
  return aPod(name, 0, { heard: { known: false, sinceMs: NOW_MS - seconds * 1000, fault, last } });
}

/** What one round saw. */
export function anObservation(pods: readonly Pod[], fields: Partial<Observation> = {}): Observation {
  return {
    workload: {
      kind: 'Deployment',
      namespace: 'default',
      name: 'gateway',
      desired: pods.length,
      actual: pods.length,
      rolling: false,
      graceSeconds: 60,
      preStopSeconds: 20,
    },
    hpa: undefined,
    bus: 'up',
    rivals: [],
    metricsApi: { fault: undefined, foreign: [] },
    pods,
    ...fields,
  };
}
