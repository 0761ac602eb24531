// A stage: the Redis and the gateways of one trial, all of them real processes.

import type { Redis } from 'ioredis';
import { startGateway, type TestGateway } from '../test/gateway.ts';

/** The namespaces of every gateway of the drill. */
const CHANNELS = JSON.stringify({
  namespaces: {
    drill: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 100_000, ageSeconds: 3600 } },
    lossy: {
      subscribe: 'anyone',
      publish: 'anyone',
      slow: 'drop',
      durable: { messages: 100_000, ageSeconds: 3600 },
    },
  },
});

/** Goodbyes are spread over this, so that a rolling restart is one and still short. */
const DRAIN_SECONDS = '1';

/** The least that a gateway takes, so that a reader is soon too slow. */
const MAX_BACKLOG_BYTES = '65536';

/** Where a trial takes place. */
export class Stage {
  readonly channel: string;
  /** The settings of its gateways, in the order in which they were started. */
  readonly #settings: Readonly<Record<string, string>>[] = [];
  readonly #gateways: (TestGateway | undefined)[] = [];
  readonly #stops: (() => Promise<unknown>)[] = [];
  /** Positions that were taken out of the log on purpose, although their branch lives on. */
  readonly removed = new Set<string>();
  /** The server that has the channel in the end. */
  master: (() => Redis) | undefined;

  constructor(channel: string) {
    this.channel = channel;
  }

  get headKey(): string {
    return `tg:{c:${this.channel}}:head`;
  }

  get streamKey(): string {
    return `tg:{c:${this.channel}}:stream`;
  }

  /** URLs of the gateways that take clients now. */
  get urls(): string[] {
    return this.#gateways.flatMap((gateway) => (gateway === undefined ? [] : [gateway.url]));
  }

  /** @throws {Error} where it is not there now. */
  gateway(index: number): TestGateway {
    const gateway = this.#gateways[index];
    if (gateway === undefined) throw new Error(`there is no gateway ${index} now`);
    return gateway;
  }

  /** Starts a gateway for each of these settings. */
  async startGateways(settings: readonly Readonly<Record<string, string>>[]): Promise<void> {
    this.#settings.push(...settings);
    this.#gateways.push(...(await Promise.all(settings.map((env) => this.#start(env)))));
  }

  /** Takes a gateway out of those that clients find; its process lives on. */
  hide(index: number): TestGateway {
    const gateway = this.gateway(index);
    this.#gateways[index] = undefined;
    return gateway;
  }

  /** Starts a gateway like one that was there, in its place. */
  async replace(index: number): Promise<void> {
    this.#gateways[index] = await this.#start(this.#settings[index] ?? {});
  }

  /** Has something ended with the stage, before everything that it was made after. */
  onStop(stop: () => Promise<unknown>): void {
    this.#stops.unshift(stop);
  }

  async stop(): Promise<void> {
    for (const stop of this.#stops) await stop();
  }

  async #start(env: Readonly<Record<string, string>>): Promise<TestGateway> {
    const gateway = await startGateway({ CHANNELS, DRAIN_SECONDS, MAX_BACKLOG_BYTES, ...env });
    this.onStop(() => gateway.stop('SIGKILL'));
    return gateway;
  }
}
