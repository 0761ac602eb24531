// The load of one trial: clients that publish all the time, and clients that hear it, spread over the gateways.

import type { Random } from '../test/random.ts';
import { until } from '../test/until.ts';
import { type Publication, reachedAtMs } from './checker.ts';
import { Publisher } from './publisher.ts';
import type { Stage } from './stage.ts';
import { Subscriber } from './subscriber.ts';

export interface LoadOptions {
  readonly publishers: number;
  readonly subscribers: number;
  /** One subscriber more, that goes from gateway to gateway. */
  readonly wanderer: boolean;
  /** Time between two messages of a publisher, on average. */
  readonly everyMs: number;
  readonly padding: number;
}

/** How long the wanderer stays. */
const STAY_MS = [150, 600] as const;

export class Load {
  readonly publishers: readonly Publisher[];
  readonly subscribers: readonly Subscriber[];
  readonly #stage: Stage;
  readonly #options: LoadOptions;

  /** Client by client on the next gateway, where it stays as long as that is there. */
  constructor(stage: Stage, random: Random, options: LoadOptions) {
    this.#stage = stage;
    this.#options = options;
    const { channel, urls } = stage;
    const { everyMs, padding } = options;
    const gateways = () => stage.urls;
    const homeOf = (index: number) => urls[index % urls.length];
    const names = (kind: string, count: number) =>
      Array.from({ length: count }, (_, index) => `${kind}-${index}`);
    this.publishers = names('publisher', options.publishers).map(
      (name, index) =>
        new Publisher({ name, channel, random: random.fork(), everyMs, padding, gateways }, homeOf(index)),
    );
    this.subscribers = names('subscriber', options.subscribers + Number(options.wanderer)).map(
      (name, index) => new Subscriber({ name, channel, random: random.fork(), gateways }, homeOf(index)),
    );
  }

  /** Gateways that a subscriber began on, by the subscriber's index. */
  homeOf(subscriber: number): number {
    return subscriber % this.#stage.urls.length;
  }

  get publications(): Publication[] {
    return this.publishers.flatMap((publisher) => publisher.publications);
  }

  get acknowledged(): number {
    return this.publishers.reduce((sum, publisher) => sum + publisher.acknowledged, 0);
  }

  /** Subscribes, then publishes, and resolves when every subscriber hears it. */
  async start(): Promise<void> {
    await this.#until(
      () => this.subscribers.every((it) => it.isSubscribed),
      'every subscriber to be subscribed',
    );
    if (this.#options.wanderer) this.subscribers.at(-1)?.wander(...STAY_MS);
    this.publish();
    await this.#until(
      () => this.subscribers.every((it) => it.sights.length > 10),
      'every subscriber to hear',
    );
  }

  /** Publishes from now on. */
  publish(): void {
    for (const publisher of this.publishers) publisher.start();
  }

  /** Resolves when so many more were acknowledged. */
  async goOn(count: number): Promise<void> {
    const enough = this.acknowledged + count;
    await this.#until(() => this.acknowledged >= enough, `${count} more acknowledged messages`);
  }

  /** Publishes nothing more, and resolves when everything is acknowledged and seen, or told to be missing. */
  async rest(): Promise<void> {
    for (const publisher of this.publishers) publisher.rest();
    await this.#until(() => this.publishers.every((it) => it.unanswered === 0), 'every answer');
    // Of messages that were published at the same time it is not known which came last, and of one after it is.
    await this.seen(await this.last());
  }

  /** Publishes one more message, and resolves when it is acknowledged. */
  async last(): Promise<Publication> {
    const publication = this.publishers[0]?.publish();
    if (publication === undefined) throw new Error('there is no publisher');
    await this.#until(() => publication.acknowledged !== undefined, 'the last answer');
    return publication;
  }

  /** Resolves when every subscriber has had the message, or knows that it is missing. */
  async seen(publication: Publication): Promise<void> {
    const waits = () => this.subscribers.filter((it) => reachedAtMs(it.sights, publication) === undefined);
    await this.#until(() => waits().length === 0, 'every subscriber to see the last message').catch(
      (error) => {
        throw new Error(`${waits().map(({ name }) => name)} never saw ${publication.key}`, { cause: error });
      },
    );
  }

  async stop(): Promise<void> {
    await Promise.all([...this.publishers, ...this.subscribers].map((client) => client.stop()));
  }

  #until(condition: () => boolean, what: string): Promise<unknown> {
    return until(condition, { what });
  }
}
