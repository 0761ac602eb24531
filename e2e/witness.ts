// A witness: what the gateways of a release log, and how they end. Of those that are gone, too, of which the cluster keeps
// nothing.

import type { V1Pod } from '@kubernetes/client-node';
import { followLog, watch } from './cluster.ts';
import type { Release } from './release.ts';

/** Of each pod the lines that are kept, and of these the ones that are told whatever they are about. */
const MAX_LINES = 2000;
const LAST_LINES = 8;

/** What is known of a pod. */
interface Known {
  readonly lines: string[];
  /** What became of it, in order. */
  readonly fate: string[];
  isFollowed: boolean;
}

/** Sees the gateways of one release, from now on. */
export class Witness {
  readonly #pods = new Map<string, Known>();
  readonly #streams: AbortController[] = [];
  readonly #namespace: string;
  #stopWatching = () => {};

  private constructor(namespace: string) {
    this.#namespace = namespace;
  }

  static async start({ namespace, selector }: Release): Promise<Witness> {
    const witness = new Witness(namespace);
    witness.#stopWatching = await watch<V1Pod>(
      `/api/v1/namespaces/${namespace}/pods`,
      selector,
      ({ type, object }) => witness.#note(type, object),
    );
    return witness;
  }

  stop(): void {
    for (const stream of this.#streams) stream.abort();
    try {
      this.#stopWatching();
    } catch {
      // It has missed something, which is no fault of what it looks at.
    }
  }

  /** What became of each pod, what it said of these users, and what it said last. */
  tell(users: readonly string[]): string {
    const lines = [...this.#pods].flatMap(([name, { lines, fate }]) => {
      const isTold = (line: string, at: number) =>
        at >= lines.length - LAST_LINES || users.some((user) => line.includes(` ${user} `));
      return [`${name}: ${fate.join(', ')}`, ...lines.filter(isTold).map((line) => `  ${line}`)];
    });
    return lines.join('\n');
  }

  #note(type: string, { metadata, status }: V1Pod): void {
    const name = metadata?.name ?? '';
    const known = this.#pods.get(name) ?? { lines: [], fate: [], isFollowed: false };
    this.#pods.set(name, known);
    const say = (what: string) => {
      if (!known.fate.some((it) => it.endsWith(what))) known.fate.push(`${clock()} ${what}`);
    };
    const { deletionTimestamp, deletionGracePeriodSeconds } = metadata ?? {};
    if (deletionTimestamp !== undefined) say(`has to go within ${deletionGracePeriodSeconds} s`);
    if (status?.reason !== undefined) say(`${status.reason}: ${status.message}`);
    for (const { state, lastState } of status?.containerStatuses ?? []) {
      const { exitCode, reason, finishedAt } = state?.terminated ?? lastState?.terminated ?? {};
      if (exitCode !== undefined) say(`ended with ${exitCode} (${reason}) at ${String(finishedAt)}`);
      if (state?.running === undefined || known.isFollowed) continue;
      known.isFollowed = true;
      void this.#follow(name, known);
    }
    if (type === 'DELETED') say('is gone');
  }

  async #follow(name: string, { lines, fate }: Known): Promise<void> {
    try {
      const stream = await followLog(this.#namespace, name, 'gateway', (line) => {
        lines.push(shortened(line));
        if (lines.length > MAX_LINES) lines.shift();
      });
      this.#streams.push(stream);
    } catch (error) {
      fate.push(`its log could not be followed: ${error}`);
    }
  }
}

/** A line of the log for a reader: when, what, of whom, and what else it says. */
function shortened(line: string): string {
  try {
    const { time, msg, user, level: _, pod: _pod, ...rest } = JSON.parse(line) as Record<string, unknown>;
    return `${String(time).slice(11, 23)} ${msg} ${user ?? ''} ${JSON.stringify(rest)}`;
  } catch {
    return line;
  }
}

/** The time of day, to be found in logs. */
export function clock(): string {
  return new Date().toISOString().slice(11, 23);
}
