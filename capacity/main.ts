// The capacity calculator: `npm run capacity -- --connections 1000000`. Prints a file of values for the chart, and in its
// comments what it takes and what breaks first.

import { parseArgs } from 'node:util';
import { chartValues } from './chart-values.ts';
import { type Demand, type Plan, planFor } from './model.ts';

const USAGE = `Usage: npm run capacity -- --connections N [options]

  --connections N    connections at the same time, at the busiest
  --publishes N      messages published in a second, by all together (connections / 100)
  --recipients N     connections that get a message, on average (10)
  --bytes N          bytes of a message's payload, on average (200)
  --durable SHARE    share of the messages that go to durable channels, 0 to 1 (0)
  --pods N           what so many pods would have to do, instead of the fewest that suffice
`;

try {
  const demand = readDemand();
  if (demand === undefined) process.stdout.write(USAGE);
  else process.stdout.write(answer(demand, planFor(demand)));
} catch (error) {
  process.stderr.write(`capacity: ${error instanceof Error ? error.message : error}\n\n${USAGE}`);
  process.exitCode = 2;
}

/** Reads the command line; undefined where it asks for help. @throws what is wrong with it */
function readDemand(): Demand | undefined {
  const { values } = parseArgs({
    options: {
      connections: { type: 'string' },
      publishes: { type: 'string' },
      recipients: { type: 'string' },
      bytes: { type: 'string' },
      durable: { type: 'string' },
      pods: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const number = (name: keyof typeof values, fallback: number | undefined, max: number, min = 0): number => {
    const given = values[name];
    const value = given === undefined ? fallback : Number(given);
    if (value === undefined) throw new Error(`--${name} is missing`);
    if (!(value >= min && value <= max))
      throw new Error(`--${name} must be a number from ${min} to ${max}, not ${given}`);
    return value;
  };
  const connections = number('connections', undefined, 1e8, 1);
  return {
    connections,
    publishesPerSecond: number('publishes', connections / 100, 1e8),
    recipients: number('recipients', Math.min(10, connections), connections),
    messageBytes: number('bytes', 200, 16 * 1024 * 1024),
    durableShare: number('durable', 0, 1),
    ...(values.pods !== undefined && { pods: number('pods', undefined, 5000, 1) }),
  };
}

function answer(demand: Demand, plan: Plan): string {
  const count = (value: number) => Math.round(value).toLocaleString('en');
  const percent = (share: number) => `${Math.round(share * 100)} %`;
  const rows: [string, string][] = [
    ['deliveries a second', count(plan.deliveriesPerSecond)],
    ['gateway pods', count(plan.pods)],
    ['connections a pod', `${count(plan.connectionsPerPod)}, cap ${count(plan.maxConnections)}`],
    [
      'load of a pod',
      `${percent(plan.podLoad)} of a full one; ${percent(plan.podLoadOneLost)} with one missing`,
    ],
    ['CPU a pod', `${plan.podCpuCores.toFixed(2)} cores at that load`],
    ['memory a pod', `${count(plan.podMemoryMib)} MiB when full`],
    ['network a pod', `${count(plan.podMibitPerSecond)} Mibit/s`],
    [
      'a message reaches',
      `${plan.podsPerMessage.toFixed(1)} pods, and the last recipient there ${plan.sweepMs.toFixed(1)} ms after the first`,
    ],
    [
      'Redis',
      `${plan.redisMasters === 1 ? 'one server' : `a Cluster of ${plan.redisMasters} masters`}, at ${percent(plan.redisLoadPerMaster)} of a full one, ${plan.redisCpuCoresPerMaster.toFixed(2)} cores each, ${count(plan.redisMibitPerSecond)} Mibit/s in all`,
    ],
    [
      'all clients back after losing all',
      `${plan.returnSeconds.toFixed(0)} s of work; clients spread it by jitter`,
    ],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`);
  const near = plan.nearest
    .map(({ limit, share }) => `${limit} at ${percent(share)} of its limit`)
    .join(', ');
  const first = plan.nearest[0];
  const told = [
    `${count(demand.connections)} connections, ${count(demand.publishesPerSecond)} messages a second to ${count(demand.recipients)} recipients each, ${count(demand.messageBytes)} bytes:`,
    '',
    ...lines,
    '',
    `What breaks first: ${first?.limit ?? ''}. ${near}.`,
    ...(plan.nearest.some(({ share }) => share > 1) ? ['MORE THAN ONE LIMIT CAN TAKE: use more pods.'] : []),
    '',
    'The constants are from one machine (capacity/constants.ts): measure yours with the scripts in loadtest/.',
  ];
  return `${told.map((line) => `# ${line}`.trimEnd()).join('\n')}\n\n${chartValues(plan)}`;
}
