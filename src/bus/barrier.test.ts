import { expect, test } from 'vitest';
import { Barrier } from './barrier.ts';

test('has one marker under way, whoever waits, and sends the next for those who came meanwhile', async () => {
  const sent: Buffer[] = [];
  const barrier = new Barrier(async (bytes) => void sent.push(bytes));
  const passed: number[] = [];
  const pass = async (name: number) => {
    await barrier.pass();
    passed.push(name);
  };
  const all = [pass(1)];
  await Promise.resolve();
  await Promise.resolve();
  for (let name = 2; name <= 1000; name += 1) all.push(pass(name));
  expect(sent).toHaveLength(1);
  expect(barrier.hear(Buffer.from('another'))).toBe(false);
  expect(passed).toEqual([]);
  expect(barrier.hear(sent[0] ?? Buffer.alloc(0))).toBe(true);
  await all[0];
  expect(passed).toEqual([1]);
  while (sent.length < 2) await Promise.resolve();
  barrier.hear(sent[1] ?? Buffer.alloc(0));
  await Promise.all(all);
  expect(sent).toHaveLength(2);
  expect(passed).toHaveLength(1000);
});

test('goes on after a marker that could not be sent', async () => {
  let away = true;
  const barrier: Barrier = new Barrier(async (bytes) => {
    if (away) throw new Error('Redis is away');
    barrier.hear(bytes);
  });
  await expect(barrier.pass()).rejects.toThrow('Redis is away');
  away = false;
  await barrier.pass();
});
