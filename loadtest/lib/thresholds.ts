// Thresholds: what a run must show to pass. A threshold on a rate or on a count of zero comes with the least number of
// samples that make it mean something, so that a run without traffic can never pass.

type Thresholds = Record<string, string[]>;

/** Every message arrived once and in order at every receiver, and about as many as were planned: who came late has
 * missed the first. */
export function nothingLost(receivers: number, received: number): Thresholds {
  return {
    ...atLeast('messages_received', Math.floor(received * LEAST_SHARE)),
    messages_lost: ['count==0'],
    messages_doubled: ['count==0'],
    messages_disordered: ['count==0'],
    publishes_failed: ['count==0'],
    receivers_complete: ['rate==1'],
    ...atLeast('receivers_closed', receivers),
  };
}

const LEAST_SHARE = 0.9;

/** At least so many were counted. */
export function atLeast(metric: string, count: number): Thresholds {
  return { [metric]: [`count>=${count}`] };
}

/** What arrived did so in time; whether anything arrived is {@link nothingLost}'s. */
export function latency(p99Ms: number): Thresholds {
  return { delivery_latency: [`p(99)<=${p99Ms}`] };
}

/** Nobody was told of missing messages, was refused, or lost a connection. */
export const undisturbed: Thresholds = {
  gaps_told: ['count==0'],
  connections_dropped: ['count==0'],
  connections_refused: ['count==0'],
};
