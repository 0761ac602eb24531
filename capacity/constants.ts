// The constants of the capacity model: what was measured, where, and what is a choice. docs/capacity.md has them as
// a table. They are of pods at a moderate load, when each message has a turn of the event loop to itself; a busier pod
// does more at once, and each costs less. Who measures on other machines puts other numbers here.

/** One constant, and where it comes from. */
export interface Constant {
  readonly value: number;
  readonly unit: string;
  readonly meaning: string;
  readonly source: string;
}

const scaling = '`npm run bench:scaling`';
const bench = '[performance.md](performance.md)';

// biome-ignore format: a table is read a row at a time
export const constants = {
  deliveryCpu: { value: 9.3, unit: 'µs', meaning: 'CPU of writing one message to one connection', source: scaling },
  arrivalCpu: { value: 105, unit: 'µs', meaning: 'CPU of a message that arrives at a pod: reading it from Redis, finding who gets it, encoding it once', source: scaling },
  publishCpu: { value: 110, unit: 'µs', meaning: 'CPU of a message that a client or a backend publishes, up to its answer', source: scaling },
  connectionCpu: { value: 5, unit: 'µs/s', meaning: 'CPU of an idle connection: its pings', source: scaling },
  baseCpu: { value: 9, unit: 'ms/s', meaning: 'CPU of a gateway that has nothing to do: probes, metrics', source: scaling },
  acceptCpu: { value: 300, unit: 'µs', meaning: 'CPU of accepting a connection, its user’s subscription included', source: bench },
  connectionMemory: { value: 13, unit: 'KiB', meaning: 'memory of an idle connection with the Redis bus', source: bench },
  returnMemory: { value: 12, unit: 'KiB', meaning: 'memory on top for each client while all of them come back at once', source: bench },
  baseMemory: { value: 110, unit: 'MiB', meaning: 'memory of a gateway without connections', source: bench },
  redisPublishCpu: { value: 30, unit: 'µs', meaning: 'CPU of Redis for a message, before any copy', source: scaling },
  redisCopyCpu: { value: 15, unit: 'µs', meaning: 'CPU of Redis for each pod that a message is sent to', source: scaling },
  redisDurableCpu: { value: 35, unit: 'µs', meaning: 'CPU of Redis for a message of a durable channel: the script and the stream', source: bench },
  envelopeBytes: { value: 160, unit: 'bytes', meaning: 'what the envelope adds to a message between Redis and a pod', source: '[architecture.md](architecture.md#the-bus)' },
  frameBytes: { value: 110, unit: 'bytes', meaning: 'what the frame adds to a message between a pod and a client', source: '[protocol.md](protocol.md)' },
} as const satisfies Record<string, Constant>;

/** What is no measurement but prudence. */
// biome-ignore format: a table is read a row at a time
export const choices = {
  podCpu: { value: 0.6, unit: 'cores', meaning: 'CPU a pod uses at the most when all is well: it has one thread, and needs the rest for returns and peaks', source: 'choice' },
  podCpuOneLost: { value: 0.85, unit: 'cores', meaning: 'CPU a pod uses at the most while one pod is missing', source: 'choice' },
  targetShare: { value: 0.7, unit: '', meaning: 'share of its cap that a pod holds when all is well; the chart refuses more', source: 'choice' },
  redisCpu: { value: 0.6, unit: 'cores', meaning: 'CPU a Redis server uses at the most: it has one thread, too', source: 'choice' },
  maxConnections: { value: 50_000, unit: '', meaning: 'connections a pod is given at the most: what one failure may cost', source: 'choice' },
} as const satisfies Record<string, Constant>;
