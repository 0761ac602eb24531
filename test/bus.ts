// Buses for tests: what a bus tells its listener is kept, and a Redis bus needs no more than an address.

import type { BusListener } from '../src/bus/bus.ts';
import { RedisBus } from '../src/bus/redis.ts';
import type { RedisAddress } from '../src/bus/redis-connect.ts';
import { until } from './until.ts';

/** Keeps what a bus tells. */
export class Heard implements BusListener {
  /** Every message so far, in order. */
  readonly messages: { readonly topic: string; readonly bytes: Buffer }[] = [];
  /** Every topic that was said to be interrupted, in order; twice where it was said twice. */
  readonly interruptions: string[] = [];

  message(topic: string, bytes: Buffer): void {
    this.messages.push({ topic, bytes });
  }

  interrupted(topics: readonly string[]): void {
    this.interruptions.push(...topics);
  }

  /** What arrived on a topic, as text. */
  texts(topic: string): string[] {
    return this.messages.filter((message) => message.topic === topic).map(({ bytes }) => bytes.toString());
  }

  /** Resolves when the text has arrived on the topic. */
  async until(topic: string, text: string): Promise<void> {
    const arrived = () => this.messages.some((it) => it.topic === topic && it.bytes.toString() === text);
    await until(arrived, { what: `"${text}" on ${topic}`, timeoutMs: 20_000 });
  }

  /** Forgets everything, so that the next test finds nothing of this one. */
  clear(): void {
    this.messages.length = 0;
    this.interruptions.length = 0;
  }
}

/** A Redis bus under test. */
export interface TestRedisBus {
  readonly bus: RedisBus;
  readonly heard: Heard;
  /** What it reported in the background, as `stage: message`. */
  readonly reports: string[];
  /** Resolves when the bus is up for the first time. */
  readonly started: Promise<void>;
}

let pods = 0;

/** Starts a Redis bus without waiting for it. */
export function openRedisBus(address: Pick<RedisAddress, 'url'> & Partial<RedisAddress>): TestRedisBus {
  const heard = new Heard();
  const reports: string[] = [];
  const bus = new RedisBus({
    address: { mode: 'standalone', sentinelName: 'mymaster', ...address },
    pod: `pod-${++pods}`,
    report: (stage, error) => reports.push(`${stage}: ${error instanceof Error ? error.message : String(error)}`),
    onProbe: () => {},
    onReconnect: () => {},
  });
  return { bus, heard, reports, started: bus.start(heard) };
}

/** Starts a Redis bus and waits until it is up. */
export async function startRedisBus(address: Parameters<typeof openRedisBus>[0]): Promise<TestRedisBus> {
  const pod = openRedisBus(address);
  await until(() => pod.started.then(() => true), { what: 'the bus to start', timeoutMs: 30_000 });
  return pod;
}
