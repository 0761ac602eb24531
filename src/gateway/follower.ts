// A follower: where this pod stands in one durable channel's chain. Delivers in order, each message once, repairs
// what is missing from the log before anything newer, and tells of what cannot be repaired.

import type { Log } from '../bus/log.ts';
import type { GapReason } from '../protocol/messages.ts';
import { GENESIS, type Position } from '../protocol/positions.ts';
import { type Entry, judge, type Place, placeOf, readEntries, readEntry, type Verdict } from './chain.ts';

/** What a follower is made with. */
export interface FollowerOptions {
  readonly channel: string;
  readonly log: Log;
  /** The next message, in order. */
  deliver(entry: Entry): void;
  /** Messages are missing; what comes next follows on the position. */
  gap(reason: GapReason, position: Position): void;
  /** Something was missing: it was `repaired`, or a gap had to be told. */
  mended(repair: Repair): void;
  report(stage: string, error: unknown): void;
}

/** A repair that found something missing. */
export interface Repair {
  readonly outcome: 'repaired' | GapReason;
  /** When it began (`performance.now()`). */
  readonly startedAtMs: number;
  /** What it brought. */
  readonly entries: readonly Entry[];
}

/** What is kept of the messages delivered last: to recognise repeats, to find where branches part, and to bring
 * clients that come back up to date without asking the log. */
const RECENT_ENTRIES = 256;
const RECENT_BYTES = 65_536;

/** What may arrive while a repair is under way; what comes on top is read from the log afterwards. */
const MAX_WAITING = 1000;

const REPAIR_PAGE = 500;

/** More than this is not brought up to date: the log is told apart from the live channel by a gap. */
const MAX_REPAIR = 10_000;

const RETRY_MS = 250;

/** A stretch of messages that many connections may need. The same object for all of them. */
export interface Stretch {
  readonly entries: readonly Entry[];
}

/** Follows one channel from the first subscriber here to the last. */
export class Follower {
  readonly #options: FollowerOptions;
  #last: Position | undefined;
  #recent: Entry[] = [];
  #recentBytes = 0;
  #waiting: Entry[] = [];
  /** The log must be read once more: something may have happened that the present repair does not see. */
  #again = false;
  #behind = false;
  #repairStartedAtMs = 0;
  /** Messages of the branch that was lost last. One that arrives late would seem to follow on where branches part. */
  #abandoned = new Set<string>();
  #busy: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;
  #since: { from: Position; to: Position; stretch: Stretch } | undefined;

  constructor(options: FollowerOptions) {
    this.#options = options;
  }

  get channel(): string {
    return this.#options.channel;
  }

  /** The last message that was delivered here. Undefined until the follower has found its place. */
  get last(): Position | undefined {
    return this.#last;
  }

  /** The log could not be read lately, so there may be more in it than was delivered. */
  get isBehind(): boolean {
    return this.#behind;
  }

  /** Finds its place: the head of the channel. Call it when the bus delivers the channel's topic. Keeps trying. */
  async start(): Promise<void> {
    // A message may have come before this, and set off a repair that had no place to begin at.
    while (this.#busy !== undefined) await this.#busy;
    await this.#exclusively(async () => {
      while (this.#last === undefined && !this.#stopped) {
        try {
          const { head } = await this.#options.log.read(this.channel, Number.MAX_SAFE_INTEGER, 1);
          this.#last = head ?? GENESIS;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS).unref());
        }
      }
    });
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
  }

  /** Takes a live message. Total: what is no entry of a log is ignored. */
  take(bytes: Buffer): boolean {
    const entry = readEntry(bytes);
    if (entry === undefined) return false;
    if (this.#abandoned.has(entry.id)) return true;
    if (this.#busy !== undefined) {
      if (this.#waiting.length < MAX_WAITING) this.#waiting.push(entry);
      else this.#again = true;
    } else if (!this.#follow(entry)) {
      this.#waiting.push(entry);
      void this.repair();
    }
    return true;
  }

  /** Compares its place with the head, because the loss of the last message has no successor to betray it. */
  check(head: Position | undefined): Promise<void> | undefined {
    const last = this.#last;
    if (last === undefined || this.#busy !== undefined) return this.#busy;
    const at = head ?? GENESIS;
    // A head that is behind may be old news or a lost tail: only a read can tell, and it costs little.
    return at.offset === last.offset && at.id === last.id ? undefined : this.repair();
  }

  /** Reads what is missing from the log and delivers it; what cannot be repaired is told as a gap. Goes on trying
   * while the log cannot be read. */
  repair(): Promise<void> {
    // What this one is for may have happened after the one under way has read.
    if (this.#busy !== undefined) this.#again = true;
    return this.#exclusively(async () => {
      try {
        await this.#catchUp();
        this.#behind = false;
      } catch {
        this.#behind = true;
        // The bus is away, and it is no news: whoever watches it says so. Once it is back this must go on by itself.
        clearTimeout(this.#retry);
        if (!this.#stopped) this.#retry = setTimeout(() => void this.repair(), RETRY_MS).unref();
      }
    });
  }

  /** Resolves when no repair is under way. */
  async settled(): Promise<void> {
    while (this.#busy !== undefined) await this.#busy;
  }

  /** Everything delivered here after a place, if that can be said from memory: what a client has missed, or that
   * his place is not on this branch. Undefined: the log must be asked. */
  since(place: Place): Verdict | undefined {
    const last = this.#last;
    if (last === undefined) return undefined;
    const [first] = this.#recent;
    if (place.offset === last.offset || place.offset > last.offset) return judge(place, [], last);
    if (first === undefined || place.offset < first.offset - 1) return undefined;
    return judge(place, this.#recent.slice(Math.max(0, place.offset - first.offset)), last);
  }

  /** The same entries as one object for all who ask from the same position, so that they can share one buffer. */
  stretch(from: Position, entries: readonly Entry[]): Stretch {
    const to = entries.at(-1) ?? from;
    const known = this.#since;
    if (known !== undefined && known.from.id === from.id && known.to.id === to.id) return known.stretch;
    const stretch = { entries };
    this.#since = { from, to, stretch };
    return stretch;
  }

  /** Delivers an entry that is next, or ignores one that is a repeat. Returns false where it is neither. */
  #follow(entry: Entry): boolean {
    const last = this.#last;
    if (last === undefined) return false;
    if (entry.offset === last.offset + 1 && entry.prev === last.id) {
      this.#deliver(entry);
      return true;
    }
    return entry.offset <= last.offset && this.#isRecent(entry);
  }

  #deliver(entry: Entry): void {
    this.#last = { offset: entry.offset, id: entry.id };
    this.#recent.push(entry);
    this.#recentBytes += entry.message.payload.length;
    while (
      this.#recent.length > RECENT_ENTRIES ||
      (this.#recentBytes > RECENT_BYTES && this.#recent.length > 1)
    ) {
      this.#recentBytes -= this.#recent.shift()?.message.payload.length ?? 0;
    }
    this.#options.deliver(entry);
  }

  /** Whether it delivered just this, not long ago. */
  #isRecent({ offset, id }: Position): boolean {
    const [first] = this.#recent;
    if (first === undefined) return this.#last?.offset === offset && this.#last.id === id;
    if (offset === first.offset - 1) return first.prev === id;
    return this.#recent[offset - first.offset]?.id === id;
  }

  /** Runs one thing at a time; what arrives meanwhile waits, and is looked at afterwards. */
  #exclusively(work: () => Promise<void>): Promise<void> {
    this.#busy ??= work()
      .catch((error: unknown) => this.#options.report('follower', error))
      .finally(() => {
        this.#busy = undefined;
        this.#lookAtWaiting();
      });
    return this.#busy;
  }

  #lookAtWaiting(): void {
    const waiting = this.#waiting;
    const again = this.#again;
    this.#waiting = [];
    this.#again = false;
    const isUnfit = (entry: Entry) => !this.#isOld(entry) && !this.#follow(entry);
    if ((waiting.some(isUnfit) || again) && !this.#stopped) void this.repair();
  }

  /** From before the follower found its place, which was after them. */
  #isOld(entry: Entry): boolean {
    return this.#last !== undefined && this.#recent.length === 0 && entry.offset <= this.#last.offset;
  }

  async #catchUp(): Promise<void> {
    this.#repairStartedAtMs = performance.now();
    while (this.#last !== undefined && !this.#stopped) {
      const last = this.#last;
      // What waits so far is in the log, because it is appended before it is published; or it is on a lost branch.
      this.#waiting = [];
      this.#again = false;
      const { entries: stored, head } = await this.#options.log.read(this.channel, last.offset, REPAIR_PAGE);
      if (head !== undefined && head.offset - last.offset > MAX_REPAIR) return this.#jump('limit', head);
      const verdict = judge(placeOf(last), readEntries(stored), head);
      switch (verdict.kind) {
        case 'continues':
          if (verdict.entries.length > 0) this.#mended('repaired', verdict.entries);
          this.#followAll(verdict.entries);
          if (stored.length < REPAIR_PAGE) return;
          break;
        case 'trimmed': {
          const [first] = verdict.entries;
          this.#jump('trimmed', first === undefined ? (head ?? GENESIS) : before(first));
          if (first === undefined) return;
          break;
        }
        case 'forked':
        case 'unknown':
          this.#jump('forked', await this.#parting(last));
          break;
      }
    }
  }

  /** Delivers a stretch of the log. What is missing inside it, nobody can repair. */
  #followAll(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (this.#follow(entry)) continue;
      this.#jump('trimmed', before(entry));
      this.#deliver(entry);
    }
  }

  /** Where this pod's branch, which was lost, and the one in the log part: the last message both have. Where that
   * is longer ago than is remembered, before the first that cannot have been delivered here. */
  async #parting(last: Position): Promise<Position> {
    const { log } = this.#options;
    const oldest = this.#recent[0] ?? last;
    const near = await log.read(this.channel, Math.max(0, oldest.offset - 1), RECENT_ENTRIES + 2);
    const entries = readEntries(near.entries);
    const common = entries.findLast((entry) => this.#isRecent(entry));
    if (common !== undefined) return common;
    const other = entries.find((entry) => entry.offset >= oldest.offset);
    if (other?.offset === oldest.offset) return before(other);
    // The branch in the log is shorter than this one: the channel was flushed, or went back to an old snapshot. What
    // is younger than anything remembered is new; of older messages it cannot be said, and nothing is told twice.
    const sinceMs = this.#recent[0]?.message.timeMs ?? Number.POSITIVE_INFINITY;
    const kept = await log.read(this.channel, 0, REPAIR_PAGE);
    const fresh = readEntries(kept.entries).find(({ message }) => (message.timeMs ?? 0) > sinceMs);
    return fresh === undefined ? (kept.head ?? GENESIS) : before(fresh);
  }

  /** Goes on from another position, and says so. */
  #jump(reason: GapReason, position: Position): void {
    const keep = this.#recent.findIndex(
      (entry) => entry.offset === position.offset && entry.id === position.id,
    );
    this.#abandoned = new Set(this.#recent.slice(keep + 1).map((entry) => entry.id));
    this.#recent = this.#recent.slice(0, keep + 1);
    this.#recentBytes = this.#recent.reduce((sum, entry) => sum + entry.message.payload.length, 0);
    this.#since = undefined;
    this.#last = { offset: position.offset, id: position.id };
    this.#mended(reason, []);
    this.#options.gap(reason, this.#last);
  }

  #mended(outcome: Repair['outcome'], entries: readonly Entry[]): void {
    this.#options.mended({ outcome, startedAtMs: this.#repairStartedAtMs, entries });
  }
}

/** The position that an entry follows on. */
function before({ offset, prev }: Entry): Position {
  return { offset: offset - 1, id: prev };
}
