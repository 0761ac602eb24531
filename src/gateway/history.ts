// History: reads of durable channels' logs, shared by all who need the same at about the same time.

import type { Log } from '../bus/log.ts';
import type { Position } from '../protocol/positions.ts';
import { type Entry, readEntries } from './chain.ts';

/** Entries of one block of offsets, and the head when they were read. */
interface Block {
  readonly entries: readonly Entry[];
  readonly head: Position | undefined;
}

/** Offsets in a block. Reads begin at a multiple of this, so that clients who missed a little more or less than
 * others share them. */
const BLOCK = 128;

/** How long a block is shared, and how many are kept at all. */
const SHARED_MS = 1000;
const MAX_BLOCKS = 64;

/** Reads stretches of channels' logs. */
export class History {
  readonly #log: Log;
  readonly #blocks = new Map<string, { block: Promise<Block>; untilMs: number }>();

  constructor(log: Log) {
    this.#log = log;
  }

  /** Entries from an offset on, some of them at least where there are any, as they were when the channel had
   * reached `upTo` or later.
   * @throws {TidegateError} `bus_unavailable`. */
  async from(channel: string, offset: number, upTo: Position): Promise<Block> {
    const start = offset - (offset % BLOCK);
    const key = `${start} ${channel}`;
    const known = this.#blocks.get(key);
    if (known !== undefined && known.untilMs > performance.now()) {
      const block = await known.block;
      if (block.entries.length >= BLOCK || (block.head?.offset ?? 0) >= upTo.offset)
        return after(block, offset);
    }
    this.#forget();
    const block = this.#log
      .read(channel, start, BLOCK)
      .then(({ entries, head }) => ({ entries: readEntries(entries), head }));
    this.#blocks.set(key, { block, untilMs: performance.now() + SHARED_MS });
    block.catch(() => this.#blocks.delete(key));
    return after(await block, offset);
  }

  /** Blocks stand in the order they were read, so the old ones are in front. */
  #forget(): void {
    const nowMs = performance.now();
    for (const [key, { untilMs }] of this.#blocks) {
      if (untilMs > nowMs && this.#blocks.size < MAX_BLOCKS) break;
      this.#blocks.delete(key);
    }
  }
}

function after({ entries, head }: Block, offset: number): Block {
  return { entries: entries.filter((entry) => entry.offset >= offset), head };
}
