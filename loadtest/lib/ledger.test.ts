import { describe, expect, test } from 'vitest';
import { Ledger } from './ledger.ts';

function newLedger() {
  const found = { received: 0, doubled: 0, disordered: 0, lost: 0 };
  const ledger = new Ledger({
    received: () => void found.received++,
    doubled: () => void found.doubled++,
    disordered: () => void found.disordered++,
    lost: (messages) => {
      found.lost += messages;
    },
  });
  const enter = (...numbers: number[]) => {
    for (const seq of numbers) ledger.enter({ by: 'p', seq, atMs: 0, runner: 'r' });
  };
  const end = (total: number) => ledger.enter({ by: 'p', seq: total, atMs: 0, runner: 'r', end: true });
  return { ledger, found, enter, end };
}

describe('the ledger of a load test', () => {
  test('finds nothing where every message came once and in order', () => {
    const { ledger, found, enter, end } = newLedger();
    ledger.expect('p');
    enter(1, 2, 3);
    end(3);
    expect(ledger.isComplete(1)).toBe(true);
    expect(ledger.close(1)).toBe(true);
    expect(found).toEqual({ received: 3, doubled: 0, disordered: 0, lost: 0 });
  });

  test('counts what is missing in the middle, at the beginning and at the end', () => {
    const { ledger, found, enter, end } = newLedger();
    ledger.expect('p');
    enter(2, 3, 6);
    end(8);
    expect(ledger.isComplete(1)).toBe(false);
    ledger.close(1);
    expect(found.lost).toBe(5);
  });

  test('follows a publisher that it did not expect from its first message on', () => {
    const { ledger, found, enter, end } = newLedger();
    enter(40, 41);
    end(41);
    ledger.close(1);
    expect(found).toMatchObject({ received: 2, lost: 0 });
  });

  test('counts a message that comes twice, and one that comes late', () => {
    const { ledger, found, enter } = newLedger();
    ledger.expect('p');
    enter(1, 3, 2, 3, 1);
    expect(found).toEqual({ received: 3, doubled: 2, disordered: 1, lost: 0 });
  });

  test('excuses what a gap told of, and nothing after it', () => {
    const { ledger, found, enter, end } = newLedger();
    ledger.expect('p');
    enter(1);
    ledger.excuse();
    enter(5, 7);
    end(7);
    ledger.close(1);
    expect(found.lost).toBe(1);
  });

  test('excuses what is missing at the end where a gap was the last word', () => {
    const { ledger, found, enter, end } = newLedger();
    ledger.expect('p');
    enter(1);
    ledger.excuse();
    end(9);
    expect(ledger.isComplete(1)).toBe(true);
    ledger.close(1);
    expect(found.lost).toBe(0);
  });

  test('is not complete without the end of every publisher', () => {
    const { ledger, enter } = newLedger();
    ledger.expect('p');
    enter(1, 2);
    expect(ledger.isComplete(1)).toBe(false);
    expect(ledger.close(1)).toBe(false);
  });

  test('remembers a bounded number of messages beyond a hole', () => {
    const { ledger, found, enter } = newLedger();
    ledger.expect('p');
    enter(...Array.from({ length: 1500 }, (_, index) => index + 2));
    expect(found.lost).toBe(1);
    enter(1);
    expect(found.doubled).toBe(1);
  });
});
