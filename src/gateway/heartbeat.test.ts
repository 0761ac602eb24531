import { afterAll, expect, test } from 'vitest';
import { startGateway } from '../../test/gateway.ts';
import { opcodes, RawPeer } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';

const PING = 0x80 | opcodes.ping;
// Whoever is to stay has this long to answer, also where the test is held up.
const settings = { PING_INTERVAL_SECONDS: '3' };
const [gateway, stalling, beating] = await Promise.all([
  startGateway(settings),
  startGateway({ PING_INTERVAL_SECONDS: '2', PONG_TIMEOUT_SECONDS: '1' }),
  startGateway({ ...settings, PLAIN_HEARTBEAT: 'true' }),
]);
afterAll(() => Promise.all([gateway.stop(), stalling.stop(), beating.stop()]));

/** Counts the pings that a client gets; its library answers each. */
function countPings({ ws }: TestClient): () => number {
  let count = 0;
  ws.on('ping', () => {
    count += 1;
  });
  return () => count;
}

test.concurrent('cuts a frozen peer within two intervals, and keeps who answers', async () => {
  const healthy = await TestClient.v1(`${gateway.url}/ws/ann`);
  const pings = countPings(healthy);
  const frozen = await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      RawPeer.upgrade(
        gateway.ports.ws,
        '/ws/frozen',
        n % 2 ? { 'Sec-WebSocket-Protocol': 'tidegate.v1' } : {},
      ),
    ),
  );
  await until(() => frozen.every((peer) => peer.ended), {
    what: 'all frozen peers to be cut',
  });
  for (const peer of frozen) {
    // Before another interval was over it would have been pinged again.
    expect(peer.frames.filter(({ firstByte }) => firstByte === PING)).toHaveLength(1);
    // Nothing would come back, so there was no closing handshake.
    expect(peer.frames.some(({ firstByte }) => firstByte === (0x80 | opcodes.close))).toBe(false);
  }
  await until(() => pings() >= 2, { what: 'a few pings' });
  expect(healthy.ended).toBeUndefined();
  const cut = () => gateway.log.filter((line) => line.user === 'frozen' && line.code === 1006);
  await until(() => cut().length === 20, { what: 'a line for each in the log' });
  expect(await gateway.metric('tidegate_closes_total', { code: '1006' })).toBeGreaterThanOrEqual(20);
  await healthy.leave();
});

test.concurrent('keeps a peer that sends anything, though it never answers a ping', async () => {
  const v1 = { 'Sec-WebSocket-Protocol': 'tidegate.v1' };
  const peer = await RawPeer.upgrade(gateway.ports.ws, '/ws/talker', v1);
  const pings = () => peer.frames.filter(({ firstByte }) => firstByte === PING).length;
  for (let count = 1; count <= 3; count += 1) {
    await until(() => pings() >= count, { what: `ping ${count}` });
    peer.send(opcodes.text, '{"type":"ping"}');
  }
  expect(peer.ended).toBe(false);
  peer.socket.destroy();
});

test.concurrent('sends the heartbeat of the plain protocol to who asked for it, and to nobody else', async () => {
  const asked = await TestClient.open(`${gateway.url}/ws/ann?heartbeat=true`);
  const bare = await TestClient.open(`${gateway.url}/ws/bob`);
  const v1 = await TestClient.v1(`${gateway.url}/ws/eve?heartbeat=true`);
  const [barePings, v1Pings] = [countPings(bare), countPings(v1)];
  for (let count = 0; count < 2; count += 1) {
    expect(await asked.text()).toBe('{"type":"ping"}');
    asked.send('{"type":"pong"}');
  }
  await until(() => barePings() >= 2 && v1Pings() >= 2, { what: 'protocol pings' });
  expect([bare.inbox, v1.inbox]).toEqual([[], []]);
  await Promise.all([asked.leave(), bare.leave(), v1.leave()]);
});

test.concurrent('keeps everybody after a stall in which answers have come and were not read', async () => {
  const clients = await Promise.all(
    Array.from({ length: 64 }, (_, n) => TestClient.open(`${stalling.url}/ws/user${n}`)),
  );
  const pings = clients.map(countPings);
  await until(() => pings.every((count) => count() >= 1), { what: 'a round of pings' });
  stalling.process.kill('SIGSTOP');
  const stoppedMs = performance.now();
  // Longer than an interval and the time-out: all are due to be pinged when it goes on, and would be overdue at once.
  await until(() => performance.now() - stoppedMs > 3000, { what: 'the stall to last' });
  const seen = pings.map((count) => count());
  stalling.process.kill('SIGCONT');
  await until(() => pings.every((count, at) => count() >= (seen[at] ?? 0) + 2 || clients[at]?.ended), {
    what: 'two more rounds of pings',
  });
  expect(clients.flatMap(({ ended }) => ended ?? [])).toEqual([]);
  await Promise.all(clients.map((client) => client.leave()));
});

test.concurrent('sends the plain heartbeat to all where PLAIN_HEARTBEAT says so', async () => {
  const client = await TestClient.open(`${beating.url}/ws/ann`);
  expect(await client.text()).toBe('{"type":"ping"}');
  await client.leave();
});
