// The constants of the capacity model: what was measured, where, and what is a choice. docs/capacity.md has them as
// a table. Who measures on other machines puts other numbers here.

/** One constant, and where it comes from. */
export interface Constant {
  readonly value: number;
  readonly unit: string;
  readonly meaning: string;
  readonly source: string;
}

/** What a thread pays for a message: the value where it has a turn of the event loop to itself, and less where the thread
 * is busy and many share a turn. */
export interface ThreadCost extends Constant {
  readonly busy: number;
}

const capacity = '`npm run bench:capacity`';
/** Quiet on a cluster, with its network between pods and Redis; busy on one core, where nothing else is in the way. */
const both = '`npm run bench:scaling`, busy: `npm run bench:capacity`';
const scaling = '`npm run bench:scaling`';
const bench = '[performance.md](performance.md)';

// biome-ignore format: a table is read a row at a time
export const constants = {
  deliveryCpu: { value: 9.3, busy: 3.9, unit: 'µs', meaning: 'CPU of writing one message to one connection', source: both },
  arrivalCpu: { value: 105, busy: 43, unit: 'µs', meaning: 'CPU of a message that arrives at a pod: reading it from Redis, finding who gets it, encoding it once', source: both },
  publishCpu: { value: 160, busy: 32, unit: 'µs', meaning: 'CPU of a message that a client or a backend publishes, up to its answer', source: capacity },
  connectionCpu: { value: 5, unit: 'µs/s', meaning: 'CPU of an idle connection: its pings', source: scaling },
  baseCpu: { value: 9, unit: 'ms/s', meaning: 'CPU of a gateway that has nothing to do: probes, metrics', source: scaling },
  acceptCpu: { value: 300, unit: 'µs', meaning: 'CPU of accepting a connection, its user’s subscription included', source: bench },
  connectionMemory: { value: 13, unit: 'KiB', meaning: 'memory of an idle connection with the Redis bus', source: bench },
  returnMemory: { value: 12, unit: 'KiB', meaning: 'memory on top for each client while all of them come back at once', source: bench },
  baseMemory: { value: 110, unit: 'MiB', meaning: 'memory of a gateway without connections', source: bench },
  redisPublishCpu: { value: 30, busy: 0.32, unit: 'µs', meaning: 'CPU of Redis for a message, before any copy', source: both },
  redisCopyCpu: { value: 15, busy: 0.19, unit: 'µs', meaning: 'CPU of Redis for each pod that a message is sent to', source: both },
  redisDurableCpu: { value: 32, busy: 21, unit: 'µs', meaning: 'CPU of Redis on top for a message of a durable channel: the script and the stream', source: capacity },
  envelopeBytes: { value: 160, unit: 'bytes', meaning: 'what the envelope adds to a message between Redis and a pod', source: '[architecture.md](architecture.md#the-bus)' },
  frameBytes: { value: 110, unit: 'bytes', meaning: 'what the frame adds to a message between a pod and a client', source: '[protocol.md](protocol.md)' },
} as const satisfies Record<string, Constant | ThreadCost>;

/** What is no measurement but prudence. */
// biome-ignore format: a table is read a row at a time
export const choices = {
  podLoad: { value: 0.6, unit: '', meaning: 'share of what fills a pod’s thread that it is given when all is well; the rest is for returns and peaks', source: 'choice' },
  podLoadOneLost: { value: 0.85, unit: '', meaning: 'the same while one pod is missing', source: 'choice' },
  targetShare: { value: 0.7, unit: '', meaning: 'share of its cap that a pod holds when all is well; the chart refuses more', source: 'choice' },
  redisLoad: { value: 0.6, unit: '', meaning: 'share of what fills a Redis server’s thread that it is given', source: 'choice' },
  redisMibit: { value: 5000, unit: 'Mibit/s', meaning: 'network of a Redis server: half of a line of 10 Gbit/s', source: 'choice' },
  maxConnections: { value: 50_000, unit: '', meaning: 'connections a pod is given at the most: what one failure may cost', source: 'choice' },
} as const satisfies Record<string, Constant>;
