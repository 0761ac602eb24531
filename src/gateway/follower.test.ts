import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeEnvelope } from '../bus/envelope.ts';
import type { Log, Slice } from '../bus/log.ts';
import { GENESIS, type Position } from '../protocol/positions.ts';
import { Follower } from './follower.ts';

/** A log that can lose its tail, be trimmed and flushed, as Redis's can, and fail to answer. */
class ForkingLog implements Pick<Log, 'read'> {
  entries: (Position & { bytes: Buffer })[] = [];
  head: Position = GENESIS;
  failures = 0;
  #made = 0;

  append(): Buffer {
    const id = `id${++this.#made}`;
    const offset = this.head.offset + 1;
    const bytes = encodeEnvelope({ offset, prev: this.head.id, id, timeMs: this.#made }, `"${id}"`);
    this.head = { offset, id };
    this.entries.push({ ...this.head, bytes });
    return bytes;
  }

  loseTail(count: number): void {
    const oldest = this.entries[0];
    this.entries.splice(Math.max(0, this.entries.length - count));
    const last = this.entries.at(-1);
    if (last !== undefined) this.head = { offset: last.offset, id: last.id };
    else if (oldest !== undefined) this.flush();
  }

  trim(keep: number): void {
    this.entries.splice(0, Math.max(0, this.entries.length - keep));
  }

  flush(): void {
    this.entries = [];
    this.head = GENESIS;
  }

  async read(_channel: string, fromOffset: number, limit: number): Promise<Slice> {
    if (this.failures > 0) {
      this.failures -= 1;
      throw new Error('away');
    }
    const entries = this.entries.filter(({ offset }) => offset >= fromOffset).slice(0, limit);
    const exists = this.head.offset > 0;
    return { entries: entries.map(({ bytes }) => bytes), head: exists ? this.head : undefined };
  }
}

type Heard =
  | { kind: 'message'; offset: number; id: string; prev: string }
  | { kind: 'gap'; reason: string; position: Position };

function setUp() {
  const log = new ForkingLog();
  const heard: Heard[] = [];
  const follower = new Follower({
    channel: 'doc:1',
    log: log as unknown as Log,
    deliver: ({ offset, id, prev }) => heard.push({ kind: 'message', offset, id, prev }),
    gap: (reason, position) => heard.push({ kind: 'gap', reason, position }),
    mended: () => {},
    report: (_stage, error) => {
      throw error;
    },
  });
  return { log, heard, follower };
}

const ids = (heard: readonly Heard[]) => heard.map((it) => (it.kind === 'message' ? it.id : it.reason));

describe('a follower', () => {
  test('delivers live messages in order, each once', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    const [a, b] = [log.append(), log.append()];
    for (const bytes of [a, b, b, a]) follower.take(bytes);
    await follower.settled();
    expect(ids(heard)).toEqual(['id1', 'id2']);
  });

  test('begins at the head, and does not deliver what was before it', async () => {
    const { log, heard, follower } = setUp();
    const before = log.append();
    const starting = follower.start();
    follower.take(before);
    follower.take(log.append());
    await starting;
    await follower.settled();
    follower.take(log.append());
    expect(ids(heard)).toContain('id3');
    expect(ids(heard)).not.toContain('id1');
  });

  test('begins also where a message comes before it is told to', async () => {
    const { log, heard, follower } = setUp();
    follower.take(log.append());
    await follower.start();
    expect(follower.last).toEqual(log.head);
    follower.take(log.append());
    expect(ids(heard)).toEqual(['id2']);
  });

  test('reads what was lost on the way before it delivers anything newer', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    follower.take(log.append());
    log.append();
    log.append();
    follower.take(log.append());
    follower.take(log.append());
    await follower.settled();
    expect(ids(heard)).toEqual(['id1', 'id2', 'id3', 'id4', 'id5']);
  });

  test('goes on by itself when the log answers again', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    log.append();
    log.failures = 2;
    follower.take(log.append());
    await expect.poll(() => ids(heard)).toEqual(['id1', 'id2']);
  });

  test('says what was trimmed before it could be read', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    follower.take(log.append());
    for (let at = 0; at < 5; at += 1) log.append();
    log.trim(2);
    await follower.check(log.head);
    expect(heard.slice(1, 2)).toEqual([
      { kind: 'gap', reason: 'trimmed', position: { offset: 4, id: 'id4' } },
    ]);
    expect(ids(heard)).toEqual(['id1', 'trimmed', 'id5', 'id6']);
  });

  test('says what is missing inside the log, and goes on after it', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    for (let at = 0; at < 5; at += 1) log.append();
    log.entries.splice(2, 1);
    await follower.check(log.head);
    expect(heard[2]).toEqual({ kind: 'gap', reason: 'trimmed', position: { offset: 3, id: 'id3' } });
    expect(ids(heard)).toEqual(['id1', 'id2', 'trimmed', 'id4', 'id5']);
  });

  test('reads once more where it is asked to while it reads', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    const repaired = follower.repair();
    log.append();
    void follower.repair();
    await repaired;
    await follower.settled();
    expect(ids(heard)).toEqual(['id1']);
  });

  test('does not ask again for a message that is in no log', async () => {
    const { log, heard, follower } = setUp();
    await follower.start();
    log.append();
    const lost = log.append();
    log.loseTail(2);
    follower.take(lost);
    await follower.settled();
    expect(heard).toEqual([]);
  });

  /** What a subscriber can rely on, whatever happens to the log and to what is sent live. */
  test('delivers a chain, tells every break, and ends at the head', async () => {
    const step = fc.oneof(
      {
        weight: 10,
        arbitrary: fc.record({
          kind: fc.constant('publish' as const),
          lost: fc.boolean(),
          late: fc.boolean(),
        }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('repeat' as const), which: fc.nat(20) }) },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant('loseTail' as const),
          count: fc.integer({ min: 1, max: 6 }),
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('trim' as const), keep: fc.nat(5) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('compare' as const) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { log, heard, follower } = setUp();
        await follower.start();
        const sent: Buffer[] = [];
        const late: Buffer[] = [];
        for (const it of steps) {
          switch (it.kind) {
            case 'publish': {
              const bytes = log.append();
              sent.push(bytes);
              if (it.late) late.push(bytes);
              else if (!it.lost) follower.take(bytes);
              break;
            }
            case 'repeat': {
              const bytes = late.shift() ?? sent[it.which % Math.max(1, sent.length)];
              if (bytes !== undefined) follower.take(bytes);
              break;
            }
            case 'loseTail':
              log.loseTail(it.count);
              break;
            case 'trim':
              log.trim(it.keep);
              break;
            case 'flush':
              log.flush();
              break;
            case 'compare':
              await follower.check(log.head);
              break;
            case 'settle':
              await follower.settled();
              break;
          }
        }
        await follower.settled();
        await follower.check(log.head.offset === 0 ? undefined : log.head);
        await follower.settled();
        expect(follower.last).toEqual(log.head);
        let at: Position = GENESIS;
        const seen = new Set<string>();
        for (const it of heard) {
          if (it.kind === 'gap') {
            at = it.position;
            continue;
          }
          // Every message follows on what came before it, so none is missing without a gap.
          expect(it.prev).toBe(at.id);
          expect(it.offset).toBe(at.offset + 1);
          expect(seen.has(it.id)).toBe(false);
          seen.add(it.id);
          at = { offset: it.offset, id: it.id };
        }
      }),
      { numRuns: 2000 },
    );
  });
});
