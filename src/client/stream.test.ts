import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Gap, Message, Recovery } from './events.ts';
import type { Link } from './link.ts';
import { type Item, Stream, type Subscribed } from './stream.ts';

// Nothing is asked of a link here: it only stands for itself.
const link = (name: string) => ({ name }) as unknown as Link;
const [one, two, three] = [link('one'), link('two'), link('three')];

const message = (id: string): Item => ({ type: 'message', channel: 'room', id, data: id });
const durable = (position: string): Item => ({ type: 'message', channel: 'doc', position, data: position });
const raw = (data: string): Item => ({ type: 'message', channel: 'raw', foreign: true, data });

/** A stream that keeps what it tells. */
function record({ channel = 'room', after }: { channel?: string; after?: string } = {}) {
  const told: string[] = [];
  const emit = (event: string, value: Gap | Recovery) =>
    told.push('reason' in value ? `gap ${value.reason} ${value.position ?? ''}`.trim() : event);
  const stream = new Stream(channel, after, { emit }, ({ data }: Message) => told.push(String(data)));
  const enter = (on: Link, answer: Subscribed = {}) => {
    stream.begin(on);
    stream.subscribed(on, answer);
  };
  return { stream, told, enter };
}

describe('a stream', () => {
  it('takes nothing before it is subscribed: that is of a subscription to the same channel that was left', () => {
    const { stream, told } = record({ channel: 'doc', after: '5-x' });
    stream.begin(one);
    stream.receive(one, durable('9-x'));
    expect(stream.position).toBe('5-x');
    stream.subscribed(one, { recovered: true, position: '9-x' });
    for (const position of ['6-x', '7-x', '8-x', '9-x']) stream.receive(one, durable(position));
    expect(told).toEqual(['recovery', '6-x', '7-x', '8-x', '9-x']);
  });
});

describe('a stream without history', () => {
  it('delivers what comes, and takes its beginning for no gap', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.receive(one, message('a'));
    expect(told).toEqual(['a']);
  });

  it('tells a gap when it is subscribed anew after the connection was lost', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.left(one, false);
    enter(two);
    stream.receive(one, message('late'));
    stream.receive(two, message('b'));
    expect(told).toEqual(['gap reconnect', 'b']);
  });

  it('tells a gap where a position was given that nothing can be replayed from', () => {
    const { stream, told, enter } = record({ after: '3-x' });
    enter(one);
    expect(told).toEqual(['gap reconnect']);
    expect(stream.position).toBeUndefined();
  });

  it('hears the old link until that is left, then what the new one had already, and the rest', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.receive(one, message('a'));
    stream.expectMove();
    enter(two);
    for (const id of ['c', 'd', 'e']) stream.receive(two, message(id));
    for (const id of ['b', 'c', 'd']) stream.receive(one, message(id));
    expect(told).toEqual(['a', 'b', 'c', 'd']);
    stream.left(one, true);
    stream.receive(one, message('late'));
    stream.receive(two, message('f'));
    expect(told).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
  });

  it('knows what the old link brought before it was left, where the new gateway is behind', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    for (const id of ['a', 'b', 'c']) stream.receive(one, message(id));
    enter(two);
    stream.receive(two, message('a'));
    stream.left(one, true);
    for (const id of ['b', 'c', 'd']) stream.receive(two, message(id));
    expect(told).toEqual(['a', 'b', 'c', 'd']);
  });

  it('goes over without a gap where neither link brought anything', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    enter(two);
    stream.left(one, true);
    stream.receive(two, message('b'));
    expect(told).toEqual(['b']);
  });

  it('tells a gap where it is not known that the old link had brought everything', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    enter(two);
    stream.receive(two, message('b'));
    expect(told).toEqual([]);
    stream.left(one, false);
    expect(told).toEqual(['gap reconnect', 'b']);
  });

  it('tells no gap where the old link had come to where the new one began before it was lost', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    enter(two);
    for (const id of ['b', 'c']) stream.receive(two, message(id));
    for (const id of ['a', 'b']) stream.receive(one, message(id));
    stream.left(one, false);
    expect(told).toEqual(['a', 'b', 'c']);
  });

  it('tells a gap when the old link is lost before its time', () => {
    const { stream, told, enter } = record();
    enter(one);
    enter(two);
    stream.receive(two, message('b'));
    stream.left(one, false);
    expect(told).toEqual(['gap reconnect', 'b']);
  });

  it('tells the gap when it is subscribed, where it was not yet as the old link was lost', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.begin(two);
    stream.left(one, false);
    expect(told).toEqual([]);
    stream.subscribed(two, {});
    stream.receive(two, message('b'));
    expect(told).toEqual(['gap reconnect', 'b']);
  });

  it('stays where it is when the new link is lost, and can go over to a third', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    enter(two);
    stream.receive(two, message('a'));
    stream.left(two, false);
    stream.receive(one, message('a'));
    stream.expectMove();
    enter(three);
    stream.receive(one, message('b'));
    for (const id of ['b', 'c']) stream.receive(three, message(id));
    stream.left(one, true);
    expect(told).toEqual(['a', 'b', 'c']);
  });

  it('takes the new link at once where the old one was not subscribed yet', () => {
    const { stream, told, enter } = record();
    stream.begin(one);
    enter(two);
    stream.receive(one, message('a'));
    stream.receive(two, message('b'));
    expect(told).toEqual(['b']);
  });

  it('does not deliver what this client has published and does not want, over whichever link it comes', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    stream.own({ id: 'mine', position: undefined });
    enter(two);
    // The old link leaves out only what was published over it.
    for (const id of ['a', 'b']) stream.receive(one, message(id));
    for (const id of ['a', 'mine', 'b', 'c']) stream.receive(two, message(id));
    stream.left(one, true);
    expect(told).toEqual(['a', 'b', 'c']);
  });

  it('tells a gap on a raw channel where something came meanwhile: its messages cannot be compared', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    stream.receive(one, raw('a'));
    enter(two);
    stream.receive(two, raw('b'));
    stream.left(one, true);
    stream.expectMove();
    enter(three);
    stream.left(two, true);
    stream.receive(three, raw('c'));
    expect(told).toEqual(['a', 'gap reconnect', 'c']);
  });

  it('stays with the old link when the new one is lost, also where it is asked for once more there', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    enter(two);
    expect([one, two].map((it) => stream.isLive(it))).toEqual([true, true]);
    stream.receive(two, message('a'));
    stream.left(two, false);
    enter(one);
    for (const id of ['a', 'b']) stream.receive(one, message(id));
    expect(told).toEqual(['a', 'b']);
    expect([one, two].map((it) => stream.isLive(it))).toEqual([true, false]);
  });

  it('keeps no more in mind than what one link has and the other has not, however long it has both', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.expectMove();
    enter(two);
    const memory = (things: number) => {
      for (let n = 0; n < things; n += 1) {
        const text = `${things}-${n}`.padEnd(1000, '.');
        for (const link of n % 2 ? [one, two] : [two, one]) stream.receive(link, message(text));
      }
      told.length = 0;
      setFlagsFromString('--expose-gc');
      (runInNewContext('gc') as () => void)();
      return process.memoryUsage().heapUsed;
    };
    const before = memory(1000);
    expect(memory(50_000) - before).toBeLessThan(20_000_000);
  });

  it('passes on the gaps that the gateway tells of', () => {
    const { stream, told, enter } = record();
    enter(one);
    stream.receive(one, { type: 'gap', channel: 'room', reason: 'slow' });
    expect(told).toEqual(['gap slow']);
  });
});

describe('a stream with history', () => {
  it('takes the position of its first subscription, and from then on moves by messages and gaps alone', () => {
    const { stream, told, enter } = record();
    enter(one, { position: '5-a' });
    expect(stream.position).toBe('5-a');
    stream.receive(one, durable('6-b'));
    expect(stream.position).toBe('6-b');
    stream.left(one, false);
    enter(two, { recovered: true, position: '9-e' });
    expect(stream.position).toBe('6-b');
    stream.receive(two, durable('7-c'));
    expect(stream.position).toBe('7-c');
    stream.receive(two, { type: 'gap', channel: 'doc', reason: 'forked', position: '8-x' });
    expect(stream.position).toBe('8-x');
    expect(told).toEqual(['6-b', 'recovery', '7-c', 'gap forked 8-x']);
  });

  it('takes the new position where nothing can be recovered, and tells why', () => {
    const { stream, told, enter } = record({ after: '1-a' });
    enter(one, { recovered: false, reason: 'trimmed', position: '9-e' });
    expect(stream.position).toBe('9-e');
    expect(told).toEqual(['gap trimmed 9-e']);
  });

  it('hears the old link until that is left, and from the new one what came after, each once', () => {
    const { stream, told, enter } = record();
    enter(one, { position: '1-a' });
    stream.receive(one, durable('2-b'));
    stream.expectMove();
    stream.begin(two);
    stream.receive(one, durable('3-c'));
    stream.subscribed(two, { recovered: true, position: '4-d' });
    stream.receive(one, durable('4-d'));
    for (const position of ['3-c', '4-d', '5-e']) stream.receive(two, durable(position));
    stream.left(one, true);
    stream.receive(two, durable('6-f'));
    expect(told).toEqual(['2-b', '3-c', '4-d', '5-e', '6-f']);
    expect(stream.position).toBe('6-f');
  });

  it('loses nothing where the old link is cut, since the new one has its history', () => {
    const { stream, told, enter } = record();
    enter(one, { position: '1-a' });
    stream.expectMove();
    enter(two, { recovered: true, position: '3-c' });
    for (const position of ['2-b', '3-c']) stream.receive(two, durable(position));
    stream.left(one, false);
    stream.receive(two, durable('4-d'));
    expect(told).toEqual(['2-b', '3-c', '4-d']);
  });

  it('goes over at once where the new gateway does not know the position, and tells why', () => {
    const { stream, told, enter } = record();
    enter(one, { position: '1-a' });
    stream.expectMove();
    enter(two, { recovered: false, reason: 'forked', position: '9-x' });
    stream.receive(one, durable('2-b'));
    stream.receive(two, durable('10-y'));
    expect(told).toEqual(['gap forked 9-x', '10-y']);
    stream.left(one, true);
    expect(stream.position).toBe('10-y');
  });

  it('does not replay what this client has published and does not want, but stands behind it', () => {
    const { stream, told, enter } = record();
    enter(one, { position: '1-a' });
    stream.own({ id: 'x', position: '2-b' });
    stream.left(one, false);
    enter(two, { recovered: true, position: '3-c' });
    stream.receive(two, durable('2-b'));
    expect(stream.position).toBe('2-b');
    stream.receive(two, durable('3-c'));
    expect(told).toEqual(['recovery', '3-c']);
  });
});

describe('a move', () => {
  // Two gateways have the same messages in the same order, each in its own time; the new one from somewhere on. When
  // the old one is left it has brought at least what came before that.
  const moves = fc
    .record({
      count: fc.integer({ min: 0, max: 12 }),
      begin: fc.nat(12),
      // At each step: which of the two links brings its next message.
      steps: fc.array(fc.boolean(), { maxLength: 40 }),
      ackAt: fc.nat(20),
    })
    .map((it) => ({ ...it, begin: Math.min(it.begin, it.count) }));

  it('loses, doubles and reorders nothing, however the two links run, with history or without', () => {
    fc.assert(
      fc.property(moves, fc.boolean(), ({ count, begin, steps, ackAt }, hasHistory) => {
        const { stream, told, enter } = record();
        const make = hasHistory ? durable : message;
        const ids = Array.from({ length: count }, (_, at) => `${at + 1}-m`);
        enter(one, hasHistory ? { position: '0-0' } : {});
        stream.expectMove();
        let old = 0;
        let fresh = Infinity;
        const step = (isOld: boolean) => {
          if (isOld && old < count) stream.receive(one, make(ids[old++] ?? ''));
          if (!isOld && fresh < count) stream.receive(two, make(ids[fresh++] ?? ''));
        };
        const ack = () => {
          if (fresh !== Infinity) return;
          stream.begin(two);
          // With a history it begins where the client is, otherwise where it happens to.
          fresh = hasHistory ? old : begin;
          stream.subscribed(two, hasHistory ? { recovered: true, position: 'head' } : {});
        };
        for (const [at, isOld] of steps.entries()) {
          if (at === ackAt) ack();
          step(isOld);
        }
        ack();
        while (!hasHistory && old < begin) step(true);
        stream.left(one, true);
        while (fresh < count) step(false);
        expect(told).toEqual(ids);
      }),
      { numRuns: 3000 },
    );
  });

  it('loses, doubles and reorders nothing where the new link is lost and the old one goes on', () => {
    fc.assert(
      fc.property(moves, ({ count, begin, steps }) => {
        const { stream, told, enter } = record();
        const ids = Array.from({ length: count }, (_, at) => `m${at}`);
        enter(one);
        stream.expectMove();
        let [old, fresh] = [0, begin];
        enter(two);
        for (const isOld of steps) {
          if (isOld && old < count) stream.receive(one, message(ids[old++] ?? ''));
          if (!isOld && fresh < count) stream.receive(two, message(ids[fresh++] ?? ''));
        }
        stream.left(two, false);
        while (old < count) stream.receive(one, message(ids[old++] ?? ''));
        expect(told).toEqual(ids);
      }),
      { numRuns: 1000 },
    );
  });

  it('loses nothing without a gap, also where the old link is cut in the middle', () => {
    fc.assert(
      fc.property(moves, ({ count, begin, steps }) => {
        const { stream, told, enter } = record();
        const ids = Array.from({ length: count }, (_, at) => `m${at}`);
        enter(one);
        stream.expectMove();
        let [old, fresh] = [0, begin];
        enter(two);
        for (const isOld of steps) {
          if (isOld && old < count) stream.receive(one, message(ids[old++] ?? ''));
          if (!isOld && fresh < count) stream.receive(two, message(ids[fresh++] ?? ''));
        }
        stream.left(one, false);
        while (fresh < count) stream.receive(two, message(ids[fresh++] ?? ''));
        const delivered = told.filter((it) => !it.startsWith('gap'));
        expect(delivered).toEqual(ids.filter((id) => delivered.includes(id)));
        if (!told.includes('gap reconnect')) expect(delivered).toEqual(ids);
      }),
      { numRuns: 2000 },
    );
  });
});
