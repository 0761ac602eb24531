// The metrics of all scripts, so that summaries and dashboards of different scripts can be laid side by side.

import { Counter, Gauge, Rate, Trend } from 'k6/metrics';

export const messagesPublished = new Counter('messages_published');
export const publishesFailed = new Counter('publishes_failed');
export const messagesReceived = new Counter('messages_received');
/** Published, and never received by a connection that was there and was not told of a gap. */
export const messagesLost = new Counter('messages_lost');
/** Received by a connection that had it already. */
export const messagesDoubled = new Counter('messages_doubled');
/** Received after a later one of the same publisher. */
export const messagesDisordered = new Counter('messages_disordered');
/** Told to a connection: some messages are missing. */
export const gapsTold = new Counter('gaps_told');
/** Share of the receivers that were there at the end and knew of every message what became of it. */
export const receiversComplete = new Rate('receivers_complete');
export const receiversClosed = new Counter('receivers_closed');
/** Not subscribed yet when publishing began: the generator, or the gateway, took longer than planned to connect. */
export const receiversLate = new Counter('receivers_late');
/** Readers that stopped reading, and were told by the gateway that they missed something. */
export const stalledReadersTold = new Counter('stalled_readers_told');

/** From the publish to the receipt, both by the same process's clock. */
export const deliveryLatency = new Trend('delivery_latency', true);
export const connectTime = new Trend('connect_time', true);
/** From the cut of a connection to the client's being connected again. */
export const returnTime = new Trend('return_time', true);

export const connectionsOpened = new Counter('connections_opened');
/** Upgrades that the gateway or what is in front of it refused. */
export const connectionsRefused = new Counter('connections_refused');
/** Upgrades that were neither accepted nor refused by the end. */
export const connectionsUnanswered = new Counter('connections_unanswered');
/** Connections that ended and nobody here had closed. */
export const connectionsDropped = new Counter('connections_dropped');
/** Clients that changed pods because the gateway asked for it. */
export const moves = new Counter('moves');

/** Connections of the fullest pod, divided by the mean of all. */
export const skew = new Gauge('skew');
/** How fast the gateways' memory grows, by a line fitted to all samples. */
export const memorySlope = new Gauge('memory_slope_mib_per_hour');
export const memorySamples = new Counter('memory_samples');
