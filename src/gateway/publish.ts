// Publishing: what a message passes before it is on the bus. The one way in for clients and for the HTTP API.

import { type Bus, userTopic } from '../bus/bus.ts';
import { encodeEnvelope, type Header } from '../bus/envelope.ts';
import { newId } from '../platform/ids.ts';
import { labelValues, type Metrics } from '../platform/metrics.ts';
import { asTidegateError, TidegateError } from '../protocol/errors.ts';
import { formatPosition } from '../protocol/positions.ts';
import type { Namespace } from './channels.ts';
import { DIRECT, rawLimitBytes, topicOf } from './hub.ts';
import type { Origin, Traces } from './traces.ts';

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
  /** Makes a retry safe. */
  readonly key?: string | undefined;
  readonly origin?: Origin | undefined;
}

/** A message to send to a user. */
export interface DirectMessage extends Pick<Publication, 'payload' | 'sender' | 'key' | 'origin'> {
  readonly user: string;
}

/** What became of a publication: its id (none on raw channels), and on durable channels where it stands. */
export interface Published {
  readonly id?: string;
  readonly position?: string;
  /** It is a repeat: this is what became of the first with the key. */
  readonly repeated?: true;
  /** Whether as many replicas as the namespace asks for have it. */
  readonly replicated?: boolean;
}

/** How long a key is remembered: a caller's for a day on durable channels, and on others as long as somebody may
 * still retry; one that the gateway makes for its own retries, a minute. */
const DURABLE_KEY_TTL_MS = 86_400_000;
const KEY_TTL_MS = 120_000;
const OWN_KEY_TTL_MS = 60_000;

/** Puts messages on the bus. */
export class Publisher {
  readonly #bus: Bus;
  readonly #metrics: Metrics;
  /** The policy of messages to users. */
  readonly #direct: Namespace;
  readonly #traces: Traces | undefined;

  constructor(bus: Bus, metrics: Metrics, maxMessageBytes: number, traces?: Traces) {
    this.#bus = bus;
    this.#metrics = metrics;
    this.#direct = { ...DIRECT, maxMessageBytes };
    this.#traces = traces;
  }

  /** Publishes to a channel.
   * @throws {TidegateError} `too_large`, `raw_channel`, `key_reused`, `bus_unavailable`, `overloaded`. */
  publish(publication: Publication): Promise<Published> {
    const { channel, namespace } = publication;
    const topic = topicOf(channel, namespace);
    const carry = (traceparent: string | undefined) =>
      namespace.raw
        ? this.#carryRaw(topic, publication)
        : this.#carry(topic, namespace, publication, traceparent);
    return this.#traces?.send(publication, carry) ?? carry(undefined);
  }

  /** Sends to every connection of a user, on whatever pod.
   * @throws {TidegateError} `too_large`, `key_reused`, `bus_unavailable`, `overloaded`. */
  send(message: DirectMessage): Promise<Published> {
    const sending = { ...message, channel: undefined, namespace: this.#direct };
    const carry = (traceparent: string | undefined) =>
      this.#carry(userTopic(message.user), this.#direct, message, traceparent);
    return this.#traces?.send(sending, carry) ?? carry(undefined);
  }

  /** Only the payload crosses the bus. */
  async #carryRaw(topic: string, { namespace, payload, skip }: Publication): Promise<Published> {
    if (skip !== undefined)
      throw new TidegateError('raw_channel', 'A raw channel cannot leave its sender out.');
    const bytes = Buffer.from(rawText(payload));
    if (bytes.length > rawLimitBytes(namespace)) throw new TidegateError('too_large');
    await this.#counted(namespace.name, this.#bus.publish(topic, bytes));
    return {};
  }

  async #carry(
    topic: string,
    { name, maxMessageBytes, durable }: Namespace,
    { payload, sender, skip, key }: Pick<Publication, 'payload' | 'sender' | 'skip' | 'key'>,
    traceparent: string | undefined,
  ): Promise<Published> {
    if (Buffer.byteLength(payload) > maxMessageBytes) throw new TidegateError('too_large');
    const fresh = { id: newId(), timeMs: Date.now() };
    if (durable === undefined && key === undefined) {
      const header: Header = {
        ...fresh,
        ...(sender !== undefined && { sender }),
        ...(skip !== undefined && { skip }),
        ...(traceparent !== undefined && { traceparent }),
      };
      await this.#counted(name, this.#bus.publish(topic, encodeEnvelope(header, payload)));
      return { id: fresh.id };
    }
    // What is kept, or must not be published twice, goes through the log.
    const appending = this.#bus.log.append({
      ...fresh,
      topic,
      sender,
      skip,
      traceparent,
      payload,
      // Every append has a key, so that one whose answer was lost can be sent again and lands once.
      key: key ?? fresh.id,
      keyTtlMs: key === undefined ? OWN_KEY_TTL_MS : durable === undefined ? KEY_TTL_MS : DURABLE_KEY_TTL_MS,
      retention: durable,
      replicas: durable?.replicas,
    });
    const { id, position, repeated, replicated } = await this.#counted(name, appending);
    return {
      id,
      ...(position !== undefined && { position: formatPosition(position) }),
      ...(repeated && { repeated }),
      ...(replicated !== undefined && { replicated }),
    };
  }

  /** Counts a message that is on its way to the bus, and whether it got there. What its sender did wrong is no
   * failure. */
  async #counted<T>(channel_namespace: string, carried: Promise<T>): Promise<T> {
    this.#metrics.messagesIn.inc({ channel_namespace });
    try {
      return await carried;
    } catch (error) {
      const { code } = asTidegateError(error);
      if (isPublishFailure(code)) this.#metrics.publishFailures.inc({ channel_namespace, reason: code });
      throw error;
    }
  }
}

function isPublishFailure(code: string): boolean {
  return labelValues.publishFailures.reason.some((reason) => reason === code);
}

/** What a raw channel carries for a value: a string is its own text, anything else its JSON. */
function rawText(payload: string): string {
  return payload.startsWith('"') ? (JSON.parse(payload) as string) : payload;
}
