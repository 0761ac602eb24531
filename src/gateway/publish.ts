// Publishing: what a message passes before it is on the bus. The one way in for clients and for the HTTP API.

import { type Bus, userTopic } from '../bus/bus.ts';
import { encodeEnvelope, type Header } from '../bus/envelope.ts';
import { newId } from '../platform/ids.ts';
import type { Metrics } from '../platform/metrics.ts';
import { TidegateError } from '../protocol/errors.ts';
import type { Namespace } from './channels.ts';
import { rawLimitBytes, topicOf } from './hub.ts';

/** A message to publish. Whether it may be published has been decided before. */
export interface Publication {
  readonly channel: string;
  readonly namespace: Namespace;
  /** JSON text. */
  readonly payload: string;
  /** The user, or undefined for an application. */
  readonly sender?: string;
  /** Id of the connection that must not get it. */
  readonly skip?: string | undefined;
}

/** Puts messages on the bus. */
export class Publisher {
  readonly #bus: Bus;
  readonly #metrics: Metrics;
  readonly #maxMessageBytes: number;

  constructor(bus: Bus, metrics: Metrics, maxMessageBytes: number) {
    this.#bus = bus;
    this.#metrics = metrics;
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Publishes to a channel and returns the message's id, or undefined on a raw channel, where there is none.
   * @throws {TidegateError} `too_large`, `raw_channel`, `bus_unavailable`, `overloaded`. */
  async publish({ channel, namespace, payload, sender, skip }: Publication): Promise<string | undefined> {
    if (namespace.raw) {
      if (skip !== undefined) throw new TidegateError('raw_channel', 'A raw channel cannot leave its sender out.');
      const bytes = Buffer.from(rawText(payload));
      if (bytes.length > rawLimitBytes(namespace)) throw new TidegateError('too_large');
      this.#metrics.messagesIn.inc({ namespace: namespace.name });
      await this.#bus.publish(topicOf(channel, namespace), bytes);
      return undefined;
    }
    return this.#publishEnvelope(topicOf(channel, namespace), namespace.name, namespace.maxMessageBytes, {
      payload,
      ...(sender !== undefined && { sender }),
      ...(skip !== undefined && { skip }),
    });
  }

  /** Sends to every connection of a user, on whatever pod, and returns the message's id.
   * @throws {TidegateError} `too_large`, `bus_unavailable`, `overloaded`. */
  send(user: string, payload: string, sender: string | undefined): Promise<string> {
    const from = sender === undefined ? {} : { sender };
    return this.#publishEnvelope(userTopic(user), 'direct', this.#maxMessageBytes, { payload, ...from });
  }

  async #publishEnvelope(
    topic: string,
    namespace: string,
    limitBytes: number,
    { payload, ...fields }: Pick<Header, 'sender' | 'skip'> & { payload: string },
  ): Promise<string> {
    if (Buffer.byteLength(payload) > limitBytes) throw new TidegateError('too_large');
    this.#metrics.messagesIn.inc({ namespace });
    const id = newId();
    await this.#bus.publish(topic, encodeEnvelope({ id, ...fields, timeMs: Date.now() }, payload));
    return id;
  }
}

/** What a raw channel carries for a value: a string is its own text, anything else its JSON. */
function rawText(payload: string): string {
  return payload.startsWith('"') ? (JSON.parse(payload) as string) : payload;
}
