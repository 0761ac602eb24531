// The checker: compares what publishers were told with what subscribers saw. Pure, and knows nothing of gateways.

import { formatPosition, type Position } from '../src/protocol/positions.ts';

/** A message that a publisher wanted to publish. */
export interface Publication {
  readonly key: string;
  /** JSON text of its data, which names the key. */
  readonly payload: string;
  /** When it was sent for the first time. */
  readonly sentAtMs: number;
  /** What the gateway acknowledged. Undefined: nothing was ever said of it. */
  acknowledged: Position | undefined;
}

/** What a subscriber saw, in order, on all its connections together.
 * - `joined`: it came without a position, and is told the channel's;
 * - `gap`: it was told that messages are missing, live or by `recovered: false`; what comes next follows on
 *   the position. */
export type Sight =
  | { readonly kind: 'joined'; readonly atMs: number; readonly position: Position }
  | {
      readonly kind: 'gap';
      readonly atMs: number;
      readonly reason: string;
      readonly position: Position | undefined;
    }
  | {
      readonly kind: 'message';
      readonly atMs: number;
      readonly position: Position;
      readonly key: string;
      readonly payload: string;
    };

/** Everything one subscriber saw. */
export interface Witness {
  readonly name: string;
  readonly sights: readonly Sight[];
}

/** What is held against the gateway, all of which must be zero. */
export interface Counts {
  /** Acknowledged, or known by its number, and never seen by a subscriber who was not told that it is missing. */
  lost: number;
  /** A position twice, or a key twice without a gap between. */
  doubled: number;
  /** Positions that do not increase, without a gap between. */
  disordered: number;
  /** Messages that nobody published, or not with this payload or at this position. */
  altered: number;
}

export interface Verdict extends Counts {
  /** Gaps that were told, over all subscribers. */
  readonly gaps: number;
  /** A line for each thing counted, for whoever looks for its cause. */
  readonly findings: readonly string[];
}

/** Reasons that mean: the branch you were on was lost. What was on it and not delivered cannot be numbered. */
const FORKS: readonly string[] = ['forked', 'unknown'];

/** A place a subscriber jumped to, and from where. */
interface Jump {
  readonly from: Position | undefined;
  readonly to: Position | undefined;
  readonly atMs: number;
  readonly isFork: boolean;
}

/** Judges a trial. `kept` are the positions, as texts, of all messages on the branch that is left in the end. */
export function check(
  publications: readonly Publication[],
  witnesses: readonly Witness[],
  kept: ReadonlySet<string>,
): Verdict {
  const counts: Counts = { lost: 0, doubled: 0, disordered: 0, altered: 0 };
  const findings: string[] = [];
  const byKey = new Map(publications.map((publication) => [publication.key, publication]));
  let gaps = 0;
  for (const { name, sights } of witnesses) {
    const find = (what: keyof Counts, text: string) => {
      counts[what] += 1;
      findings.push(`${what}: ${name} ${text}`);
    };
    const { jumps, seen, holes, joinedAtMs } = follow(sights, byKey, find);
    gaps += jumps.length;
    for (const [position, atMs] of seen) {
      if (kept.has(position) || jumps.some((jump) => jump.isFork && jump.atMs >= atMs)) continue;
      find('lost', `was never told that ${position}, which it has, is on a lost branch`);
    }
    for (const { key, sentAtMs, acknowledged } of publications) {
      if (acknowledged === undefined || sentAtMs < joinedAtMs) continue;
      const position = formatPosition(acknowledged);
      const isKept = kept.has(position);
      if (seen.has(position) || (isKept && holes.has(acknowledged.offset))) continue;
      const isTold = jumps.some((jump) => covers(jump, acknowledged, sentAtMs, isKept));
      if (!isTold)
        find('lost', `was never told of ${key} at ${position}${isKept ? '' : ', which Redis lost'}`);
    }
  }
  return { ...counts, gaps, findings };
}

/** Walks along what one subscriber saw. */
function follow(
  sights: readonly Sight[],
  byKey: ReadonlyMap<string, Publication>,
  find: (what: keyof Counts, text: string) => void,
) {
  /** Positions, each with the time it came. */
  const seen = new Map<string, number>();
  const holes = new Set<number>();
  const jumps: Jump[] = [];
  /** Keys, each with the number of gaps before it. */
  const keys = new Map<string, number>();
  /** The place that the next message must follow on. Undefined: any. */
  let at: Position | undefined;
  let joinedAtMs = Number.POSITIVE_INFINITY;
  for (const sight of sights) {
    const { kind, atMs, position } = sight;
    if (kind === 'joined') {
      // Whoever has had nothing yet may ask again without a position.
      at = position;
      joinedAtMs = Math.min(joinedAtMs, atMs);
      continue;
    }
    if (kind === 'gap') {
      jumps.push({ from: at, to: position, atMs, isFork: FORKS.includes(sight.reason) });
      at = position;
      continue;
    }
    const text = formatPosition(position);
    const published = byKey.get(sight.key);
    if (published === undefined || published.payload !== sight.payload) {
      find('altered', `got ${text} with ${sight.payload.slice(0, 100)}, which nobody published`);
    }
    if (seen.has(text)) find('doubled', `got ${text} twice`);
    else if (keys.get(sight.key) === jumps.length)
      find('doubled', `got the key ${sight.key} twice, now at ${text}`);
    else if (at !== undefined && position.offset <= at.offset) {
      find('disordered', `got ${text} after ${formatPosition(at)}`);
    }
    // Each number that is left out is a message, whether its publisher heard of it or not.
    for (let hole = (at?.offset ?? position.offset) + 1; hole < position.offset; hole += 1) {
      holes.add(hole);
      find(
        'lost',
        `got ${text} after ${at === undefined ? 'nothing' : formatPosition(at)}: ${hole} is missing`,
      );
    }
    seen.set(text, atMs);
    keys.set(sight.key, jumps.length);
    at = position;
  }
  return { seen, holes, jumps, joinedAtMs };
}

/** Whether a subscriber who was told of this jump knows that a message may be missing that was published before. */
function covers(jump: Jump, { offset }: Position, sentAtMs: number, isKept: boolean): boolean {
  if (jump.atMs < sentAtMs) return false;
  if (jump.to === undefined) return true;
  // What is on the branch that is left must come after the place that was named; a lost branch is told of as a whole.
  if (jump.isFork) return !isKept || offset <= jump.to.offset;
  return offset <= jump.to.offset && (jump.from === undefined || offset > jump.from.offset);
}

/** When a subscriber had an acknowledged message, or was told of a gap at or past it. Undefined: not yet. */
export function reachedAtMs(
  sights: readonly Sight[],
  { acknowledged, sentAtMs }: Publication,
): number | undefined {
  if (acknowledged === undefined) return undefined;
  const reached = sights.find(({ kind, position, atMs }) => {
    if (position === undefined || atMs < sentAtMs) return false;
    if (kind === 'message') return position.offset === acknowledged.offset && position.id === acknowledged.id;
    return position.offset >= acknowledged.offset;
  });
  return reached?.atMs;
}
