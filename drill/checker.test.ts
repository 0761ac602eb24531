import { describe, expect, test } from 'vitest';
import { check, type Publication, reachedAtMs, type Sight } from './checker.ts';

/** A message of a branch: its position is its number and the branch's letter, its key both of them. */
function publication(offset: number, branch = 'a', fields: Partial<Publication> = {}): Publication {
  const id = `${branch}${offset}`;
  return { key: id, payload: payloadOf(id), sentAtMs: offset, acknowledged: { offset, id }, ...fields };
}

const payloadOf = (key: string) => JSON.stringify({ key });

function message(
  offset: number,
  branch = 'a',
  fields: { key?: string; payload?: string; atMs?: number } = {},
): Sight {
  const id = `${branch}${offset}`;
  const key = fields.key ?? id;
  return {
    kind: 'message',
    atMs: offset + 0.5,
    position: { offset, id },
    key,
    payload: payloadOf(key),
    ...fields,
  };
}

const joined = (offset = 0, atMs = 0): Sight => ({
  kind: 'joined',
  atMs,
  position: { offset, id: `a${offset}` },
});

const gap = (reason: string, offset: number, atMs: number, branch = 'a'): Sight => ({
  kind: 'gap',
  atMs,
  reason,
  position: { offset, id: `${branch}${offset}` },
});

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

const positions = (publications: readonly Publication[]) =>
  new Set(publications.map(({ acknowledged }) => `${acknowledged?.offset}-${acknowledged?.id}`));

function judge(
  sights: readonly Sight[],
  publications: readonly Publication[],
  kept = positions(publications),
) {
  const { findings, ...counts } = check(publications, [{ name: 'ann', sights }], kept);
  return counts;
}

const CLEAN = { lost: 0, doubled: 0, disordered: 0, altered: 0 };

describe('the checker', () => {
  const five = numbers(1, 5).map((offset) => publication(offset));

  test('finds nothing where everything arrives once and in order', () => {
    const sights = [joined(), ...numbers(1, 5).map((offset) => message(offset))];
    expect(judge(sights, five)).toEqual({ ...CLEAN, gaps: 0 });
  });

  test('counts a message that is left out', () => {
    const sights = [joined(), message(1), message(2), message(4), message(5)];
    expect(judge(sights, five)).toMatchObject({ ...CLEAN, lost: 1 });
  });

  test('counts a number that is left out also where its publisher never heard of it', () => {
    const four = five.filter(({ key }) => key !== 'a3');
    const sights = [joined(), message(1), message(2), message(4), message(5)];
    expect(judge(sights, four)).toMatchObject({ ...CLEAN, lost: 1 });
  });

  test('counts the first message that is left out, and the last', () => {
    expect(judge([joined(), ...numbers(2, 5).map((offset) => message(offset))], five)).toMatchObject({
      lost: 1,
    });
    expect(judge([joined(), ...numbers(1, 4).map((offset) => message(offset))], five)).toMatchObject({
      lost: 1,
    });
  });

  test('counts a subscriber who hears nothing at all', () => {
    expect(judge([joined()], five)).toMatchObject({ ...CLEAN, lost: 5 });
  });

  test('does not count what was published before the subscriber came', () => {
    expect(judge([joined(3, 3.5), message(4), message(5)], five)).toMatchObject(CLEAN);
  });

  test('counts every subscriber by himself', () => {
    const all = [joined(), ...numbers(1, 5).map((offset) => message(offset))];
    const witnesses = [all, all.slice(0, -1), all.slice(0, -2)].map((sights, at) => ({
      name: `s${at}`,
      sights,
    }));
    expect(check(five, witnesses, positions(five))).toMatchObject({ ...CLEAN, lost: 3 });
  });

  test('does not count what a gap tells of', () => {
    const sights = [joined(), message(1), gap('slow', 4, 4.5), message(5)];
    expect(judge(sights, five)).toEqual({ ...CLEAN, gaps: 1 });
  });

  test('counts what a gap does not reach, on either side', () => {
    expect(judge([joined(), message(1), gap('slow', 3, 4.5), message(5)], five)).toMatchObject({ lost: 1 });
    const late = [joined(), message(1), message(4), gap('slow', 4, 4.6), message(5)];
    expect(judge(late, five)).toMatchObject({ lost: 2 });
  });

  test('counts what comes after a gap and should not, as it comes before the place that was told', () => {
    const sights = [joined(), message(1), gap('slow', 3, 4.5), message(3), message(4), message(5)];
    expect(judge(sights, five)).toMatchObject({ disordered: 1 });
  });

  test('counts a position twice, also with a gap between', () => {
    const sights = [joined(), ...numbers(1, 5).map((offset) => message(offset))];
    expect(judge([...sights, message(5)], five)).toMatchObject({ ...CLEAN, doubled: 1 });
    expect(judge([...sights, gap('forked', 4, 6), message(5)], five)).toMatchObject({ ...CLEAN, doubled: 1 });
  });

  test('counts a key twice, unless there is a gap between', () => {
    const publications = [
      ...numbers(1, 4).map((offset) => publication(offset)),
      publication(5, 'a', { key: 'a4' }),
    ];
    const four = [joined(), ...numbers(1, 4).map((offset) => message(offset))];
    const kept = positions(five);
    const again = message(5, 'a', { key: 'a4' });
    expect(judge([...four, again], publications, kept)).toMatchObject({ doubled: 1 });
    expect(judge([...four, gap('forked', 4, 4.7), again], publications, kept)).toMatchObject({ doubled: 0 });
  });

  test('counts disorder', () => {
    const sights = [joined(), message(1), message(3), message(2), message(4), message(5)];
    expect(judge(sights, five)).toMatchObject({ disordered: 1 });
  });

  test('counts what nobody published, and what is not what was published', () => {
    const four = numbers(1, 4).map((offset) => message(offset));
    const strange = message(5, 'a', { key: 'nobody' });
    expect(judge([joined(), ...four, strange], five)).toMatchObject({ altered: 1 });
    const changed = message(5, 'a', { payload: '{"key":"a5","x":1}' });
    expect(judge([joined(), ...four, changed], five)).toMatchObject({ altered: 1 });
  });
});

describe('the checker, of a branch that was lost after 3', () => {
  const lost = [publication(4), publication(5)];
  const branch = [publication(4, 'b', { sentAtMs: 14 }), publication(5, 'b', { sentAtMs: 15 })];
  const common = numbers(1, 3).map((offset) => publication(offset));
  const all = [...common, ...lost, ...branch];
  const kept = positions([...common, ...branch]);
  const before = [joined(), ...numbers(1, 3).map((offset) => message(offset))];
  const after = [message(4, 'b', { atMs: 16 }), message(5, 'b', { atMs: 17 })];

  test('finds nothing where the fork is told, whether its end was seen or not', () => {
    const told = [gap('forked', 3, 13), ...after];
    for (const seen of [[], [message(4)], [message(4), message(5)]]) {
      expect(judge([...before, ...seen, ...told], all, kept)).toMatchObject(CLEAN);
    }
  });

  test('counts a fork that is not told', () => {
    expect(judge([...before, message(4), message(5, 'b', { atMs: 17 })], all, kept)).not.toMatchObject({
      lost: 0,
    });
    expect(judge([...before, ...after], all, kept)).toMatchObject({ lost: 2 });
  });

  test('counts what is left out of the new branch', () => {
    const told = [...before, message(4), gap('forked', 3, 13)];
    expect(judge([...told, message(5, 'b', { atMs: 17 })], all, kept)).toMatchObject({ lost: 1 });
    expect(judge(told, all, kept)).toMatchObject({ lost: 2 });
  });

  test('does not take a fork that was told before for one of what was published after', () => {
    const later = publication(6, 'b', { sentAtMs: 20 });
    expect(judge([...before, gap('forked', 3, 13), ...after], [...all, later], kept)).toMatchObject({
      lost: 1,
    });
  });

  test('counts what is told twice', () => {
    const sights = [...before, message(4), gap('forked', 2, 13), message(3), ...after];
    expect(judge(sights, all, kept)).toMatchObject({ doubled: 1 });
  });
});

describe('a subscriber has reached a message', () => {
  const wanted = publication(5);

  test('when it has it, or is told of a gap at or past it', () => {
    expect(reachedAtMs([joined(), message(4), message(5)], wanted)).toBe(5.5);
    expect(reachedAtMs([joined(), message(4), gap('slow', 7, 8)], wanted)).toBe(8);
  });

  test('and not by one before it, one of another branch, or a gap of before', () => {
    expect(reachedAtMs([joined(), message(4)], wanted)).toBeUndefined();
    expect(reachedAtMs([joined(), message(5, 'b')], wanted)).toBeUndefined();
    expect(reachedAtMs([joined(), gap('forked', 9, 4), message(4)], wanted)).toBeUndefined();
  });
});
