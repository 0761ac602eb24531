// Load balancers: how the pod for a new connection is picked.

import type { Random } from '../test/random.ts';

/** What a load balancer sees of a pod. */
export interface Target {
  readonly connections: number;
  /** Pods are numbered in the order in which they came. */
  readonly index: number;
}

/** What a connection brings that some load balancers look at. */
export interface Caller<T extends Target> {
  /** The pod on which the client is while it looks for another. */
  readonly from: T | undefined;
  /** Stays the same for all tries of one client; from 0 to 1. */
  readonly hash: number;
}

export const balancerNames = [
  'random',
  'round-robin',
  'least-connections',
  'two-choices',
  'sticky',
  'hash',
  'biased',
] as const;

export type BalancerName = (typeof balancerNames)[number];

/** Picks one of the targets, of which there is at least one. */
export type Balancer = <T extends Target>(targets: readonly T[], caller: Caller<T>) => T | undefined;

/** Makes a load balancer. */
export function createBalancer(name: BalancerName, random: Random): Balancer {
  let turn = random.below(1000);
  switch (name) {
    case 'random':
      return (targets) => targets[random.below(targets.length)];
    case 'round-robin':
      return (targets) => {
        turn += 1;
        return targets[turn % targets.length];
      };
    case 'least-connections':
      return (targets) => targets.reduce((one, other) => (other.connections < one.connections ? other : one));
    case 'two-choices':
      return (targets) => {
        const [one, other] = [targets[random.below(targets.length)], targets[random.below(targets.length)]];
        return one && other && other.connections < one.connections ? other : one;
      };
    case 'sticky': // By a cookie: whoever has been somewhere comes back there.
      return (targets, { from }) =>
        from !== undefined && targets.includes(from) ? from : targets[random.below(targets.length)];
    case 'hash': // Consistent: a client is sent elsewhere only where a new pod has taken over its share.
      return (targets, { from, hash }) => {
        const target = targets[Math.floor(hash * targets.length)];
        if (from === undefined || target === undefined || !targets.includes(from)) return target;
        return target.index > from.index ? target : from;
      };
    case 'biased': // Half of all connections go to the oldest pod, as with weights that somebody forgot.
      return (targets) => targets[random.next() < 0.5 ? 0 : random.below(targets.length)];
  }
}
