import { expect, onTestFinished, test, vi } from 'vitest';
import { newId } from '../platform/ids.ts';
import { channelTopic } from './bus.ts';
import { MemoryLog } from './memory-log.ts';

test('lets go of channels to which nobody publishes any more, the head a week after its messages', async () => {
  const clock = vi.spyOn(Date, 'now');
  onTestFinished(() => clock.mockRestore());
  const startMs = Date.now();
  const log = new MemoryLog(async () => {});
  const append = (channel: string) =>
    log.append({
      topic: channelTopic(channel),
      id: newId(),
      sender: undefined,
      timeMs: startMs,
      skip: undefined,
      traceparent: undefined,
      payload: '1',
      key: newId(),
      keyTtlMs: 1000,
      retention: { messages: 10, ageMs: 60_000 },
      replicas: undefined,
    });
  const { position } = await append('doc:1');
  clock.mockReturnValue(startMs + 61_000);
  await append('doc:2');
  expect(await log.read('doc:1', 0, 10)).toEqual({ entries: [], head: position });
  const weekMs = 7 * 86_400_000;
  clock.mockReturnValue(startMs + weekMs + 62_000);
  await append('doc:3');
  expect(await log.heads(['doc:1', 'doc:2', 'doc:3'])).toEqual([
    undefined,
    { offset: 1, id: expect.any(String) },
    { offset: 1, id: expect.any(String) },
  ]);
});
