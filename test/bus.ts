// Buses for tests: what a bus tells its listener is kept, a Redis bus needs no more than an address, and what a test of
// outages has to wait for.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, expect, onTestFinished } from 'vitest';
import type { BusListener, BusState } from '../src/bus/bus.ts';
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
    await until(arrived, { what: `"${text}" on ${topic}` });
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
  readonly address: RedisAddress;
  readonly heard: Heard;
  /** What it reported in the background, as `stage: message`. */
  readonly reports: string[];
  readonly probeFailures: readonly string[];
  /** Resolves when the bus is up for the first time. */
  readonly started: Promise<void>;
}

let pods = 0;

/** Where Redis is: standalone unless it says otherwise. */
export type TestAddress = Pick<RedisAddress, 'url'> & Partial<RedisAddress>;

/** Starts a Redis bus without waiting for it. */
export function openRedisBus(given: TestAddress): TestRedisBus {
  const address: RedisAddress = { mode: 'standalone', sentinelName: 'mymaster', ...given };
  const heard = new Heard();
  const reports: string[] = [];
  const probeFailures: string[] = [];
  const bus = new RedisBus({
    address,
    pod: `pod-${++pods}`,
    report: (stage, error) =>
      reports.push(`${stage}: ${error instanceof Error ? error.message : String(error)}`),
    onProbe: () => {},
    onProbeFailure: (reason) => probeFailures.push(reason),
    onReconnect: () => {},
  });
  return { bus, address, heard, reports, probeFailures, started: bus.start(heard) };
}

/** Starts a Redis bus and waits until it is up. */
export async function startRedisBus(address: TestAddress): Promise<TestRedisBus> {
  const pod = openRedisBus(address);
  await until(() => pod.started.then(() => true), { what: 'the bus to start' });
  return pod;
}

/** Starts a Redis bus, as {@link startRedisBus}, that stops with the test. */
export async function startPod(address: TestAddress): Promise<TestRedisBus> {
  const pod = await startRedisBus(address);
  onTestFinished(() => pod.bus.stop());
  return pod;
}

/** Starts a Redis bus without waiting for it; it stops with the test. */
export function openPod(address: TestAddress): TestRedisBus {
  const pod = openRedisBus(address);
  onTestFinished(() => pod.bus.stop());
  return pod;
}

const measured: string[] = [];

/** Prints, after the tests of a file, what {@link deliversAgain} measured. */
export function printMeasurements(): void {
  afterAll(() => {
    const lines = measured.map((line) => `    ${line}\n`);
    if (lines.length > 0) process.stdout.write(`  delivers again (the target is 2000 ms)\n${lines.join('')}`);
  });
}

/** Publishes on each topic with the first pod until all pods hear it, and notes how long that took from now. */
export async function deliversAgain(
  what: string,
  pods: readonly TestRedisBus[],
  topics: readonly string[],
): Promise<void> {
  const sinceMs = performance.now();
  const text = `again ${what} ${sinceMs}`;
  await Promise.all(
    topics.map((topic) =>
      until(
        async () => {
          await pods[0]?.bus.publish(topic, Buffer.from(text)).catch(() => {});
          return pods.every(({ heard }) => heard.texts(topic).includes(text));
        },
        { what: `${topic} to deliver again ${what}` },
      ),
    ),
  );
  measured.push(`${what}: ${Math.round(performance.now() - sinceMs)} ms`);
}

/** Resolves when each pod has named the topics as interrupted. Each is named once, and no other is. */
export async function interruptionsAre(
  pods: readonly TestRedisBus[],
  topics: readonly string[],
): Promise<void> {
  for (const { heard } of pods) {
    await until(() => heard.interruptions.length >= topics.length, { what: 'all interruptions to be told' });
    expect(heard.interruptions.toSorted()).toEqual(topics.toSorted());
  }
}

/** Resolves when all buses are in the state. */
export async function stateIs(state: BusState, pods: readonly TestRedisBus[]): Promise<void> {
  for (const { bus } of pods) {
    await until(() => bus.health.state === state, { what: `the bus to be ${state}` });
  }
}

/** Watches the buses, and gives every state they were seen in when the returned function is called. */
export function watchStates(pods: readonly TestRedisBus[]): () => BusState[] {
  const states = new Set<BusState>();
  const timer = setInterval(() => {
    for (const { bus } of pods) states.add(bus.health.state);
  }, 5);
  return () => {
    clearInterval(timer);
    return [...states].toSorted();
  };
}

/** Resolves when the bus gives such a reason for its health. */
export async function reasonMatches(pod: TestRedisBus, pattern: RegExp): Promise<void> {
  await until(() => pattern.test(pod.bus.health.reason ?? ''), { what: `a reason that matches ${pattern}` });
}

const program = `
  const [, mode, url] = process.argv;
  const { RedisBus } = await import(${JSON.stringify(new URL('../src/bus/redis.ts', import.meta.url).href)});
  const address = { url, mode, sentinelName: 'mymaster' };
  const bus = new RedisBus({ address, pod: 'pod', report() {}, onProbe() {}, onProbeFailure() {}, onReconnect() {} });
  // A gateway has listeners that keep it alive.
  const alive = setInterval(() => {}, 1000);
  const started = bus.start({ message() {}, interrupted() {} }).then(async () => {
    await Promise.all(Array.from({ length: 50 }, (_, index) => bus.subscribe('tg:{c:' + index + '}')));
    console.log('up');
  });
  process.stdin.once('data', async () => {
    const late = bus.publish('tg:{c:1}', Buffer.from('late')).catch(() => {});
    await bus.stop();
    await Promise.all([started, late]);
    clearInterval(alive);
    process.stdin.destroy();
    console.log('stopped');
  });
  console.log('begun');`;

/** Starts a process of its own that has a Redis bus; it is killed with the test, unless it has ended before. */
export function startBusProcess(mode: RedisAddress['mode'], url: string) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, mode, url], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const ended = once(child, 'exit') as Promise<[number | null]>;
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  const says = (word: string) => until(() => output.includes(word), { what: `"${word}"` });
  return {
    /** Resolves when it has begun to start the bus. */
    begun: () => says('begun'),
    /** Resolves when its bus is up and its topics are subscribed. */
    up: () => says('up'),
    /** Stops the bus, and nothing else, and resolves when the process has ended by itself. */
    async end() {
      child.stdin.end('stop');
      await says('stopped');
      expect(await until(() => ended, { what: 'the process to end by itself' })).toEqual([0, null]);
    },
  };
}
