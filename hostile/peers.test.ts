import { expect } from 'vitest';
import { opcodes, RawPeer } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { TestClient } from '../test/websocket.ts';
import { frame } from './frame.ts';
import { Crowd, many } from './peers.ts';
import { openStage } from './stage.ts';

const UPGRADE_RATE = 100;
const settings = { PING_INTERVAL_SECONDS: '5', PONG_TIMEOUT_SECONDS: '4', MAX_CONNECTIONS_PER_USER: '0' };
const [open, limited, patient] = await Promise.all([
  openStage('peers', settings),
  // The limit that a gateway has unless it is told otherwise, and a proxy that says who comes.
  openStage('peers', {
    UPGRADE_RATE: String(UPGRADE_RATE),
    TRUSTED_PROXIES: '1',
    MAX_CONNECTIONS_PER_USER: '0',
  }),
  // Does not ping within an attack: who does not read is to be found by what waits for it, however slow the machine is.
  openStage('peers', { PING_INTERVAL_SECONDS: '3600', MAX_CONNECTIONS_PER_USER: '0' }),
]);

const TEN_THOUSAND = 10_000;
const v1 = { 'Sec-WebSocket-Protocol': 'tidegate.v1' };

open.attack(
  {
    does: '10,000 connections from one address, without a limit',
    answer: '101, and at most 16 KiB each; all gone when they are cut at once',
    boundMib: 160,
  },
  async () => {
    const crowd = new Crowd();
    await crowd.join(open.gateway.ports.ws, TEN_THOUSAND, '/ws/crowd?heartbeat=true', v1);
    expect([...crowd.statuses]).toEqual([[101, TEN_THOUSAND]]);
    crowd.leave();
  },
);

limited.attack(
  {
    does: '10,000 connections from one address, with the default UPGRADE_RATE',
    answer: '429 for most; others get in meanwhile',
  },
  async () => {
    const crowd = new Crowd();
    const beganMs = performance.now();
    const joining = crowd.join(limited.gateway.ports.ws, TEN_THOUSAND, '/ws/crowd', {
      ...v1,
      'X-Forwarded-For': '203.0.113.7',
    });
    for (let other = 0; other < 20; other += 1) {
      const headers = { 'X-Forwarded-For': `198.51.100.${other}` };
      await (await TestClient.v1(`${limited.gateway.url}/ws/other`, { headers })).leave();
    }
    await joining;
    const seconds = (performance.now() - beganMs) / 1000;
    crowd.leave();
    expect([...crowd.statuses.keys()].sort()).toEqual([101, 429]);
    // The burst and what the rate has given since: a slow machine takes longer, and lets in more.
    expect(crowd.statuses.get(101)).toBeLessThanOrEqual(UPGRADE_RATE * (10 + seconds));
  },
);

limited.attack(
  {
    does: '5000 connections, each from another address of one IPv6 /64, with the default UPGRADE_RATE',
    answer: '429 for most; others get in meanwhile',
  },
  async () => {
    const crowd = new Crowd();
    let at = 0;
    const joining = crowd.join(limited.gateway.ports.ws, 5000, '/ws/crowd', () => ({
      ...v1,
      'X-Forwarded-For': `2001:db8:bad:1:${(at++).toString(16)}::1`,
    }));
    for (let other = 0; other < 20; other += 1) {
      const headers = { 'X-Forwarded-For': `2001:db8:600d:${other}::1` };
      await (await TestClient.v1(`${limited.gateway.url}/ws/other`, { headers })).leave();
    }
    await joining;
    crowd.leave();
    expect([...crowd.statuses.keys()].sort()).toEqual([101, 429]);
    expect(crowd.statuses.get(429)).toBeGreaterThan(5000 / 2);
  },
);

open.attack(
  { does: '500 peers that vanish: they neither read nor answer', answer: 'cut when a ping is not answered' },
  async () => {
    const before = await open.gateway.metric('tidegate_closes_total', { code: '1006' });
    const peers = await Promise.all(
      Array.from({ length: 500 }, () => RawPeer.upgrade(open.gateway.ports.ws, '/ws/ghost', v1)),
    );
    for (const peer of peers) peer.stopReading();
    await until(async () => (await open.gateway.metric('tidegate_connections')) === 2, {
      what: 'the ghosts to be gone',
      pollIntervalMs: 100,
    });
    expect((await open.gateway.metric('tidegate_closes_total', { code: '1006' })) - before).toBe(500);
    for (const { socket } of peers) socket.destroy();
  },
);

open.attack(
  { does: '300 peers that close their half and go on reading', answer: 'ended at once' },
  async () => {
    await many(300, async () => {
      const peer = await RawPeer.upgrade(open.gateway.ports.ws, '/ws/half', v1);
      peer.socket.end();
      await peer.end();
    });
  },
);

open.attack(
  { does: '300 peers that reset their connection, in the middle of a frame', answer: 'forgotten' },
  async () => {
    await many(300, async () => {
      const peer = await RawPeer.upgrade(open.gateway.ports.ws, '/ws/reset', v1);
      peer.socket.write(frame({ opcode: opcodes.text, payload: 'half', length: 1000 }));
      peer.socket.resetAndDestroy();
    });
  },
);

open.attack({ does: '200 peers that never answer a close', answer: 'cut five seconds later' }, async () => {
  const peers = await Promise.all(
    Array.from({ length: 200 }, () => RawPeer.upgrade(open.gateway.ports.ws, '/ws/mute', v1)),
  );
  for (const peer of peers) peer.socket.write(frame({ opcode: opcodes.binary, payload: 'x' }));
  await Promise.all(peers.map((peer) => peer.end()));
});

patient.attack(
  {
    does: '50 subscribers that never read 20 MB each',
    answer: 'closed with 4401 at MAX_BACKLOG_BYTES',
    boundMib: 256,
  },
  async () => {
    const before = await patient.gateway.metric('tidegate_closes_total', { code: '4401' });
    const peers = await Promise.all(
      Array.from({ length: 50 }, async (_, at) => {
        const peer = await RawPeer.upgrade(patient.gateway.ports.ws, `/ws/deaf${at}`, v1);
        peer.send(opcodes.text, '{"type":"subscribe","ref":1,"channel":"room:deaf"}');
        await until(() => peer.texts.some((it) => it.includes('"ok"')), { what: 'an ok' });
        peer.stopReading();
        return peer;
      }),
    );
    const publisher = await TestClient.v1(`${patient.gateway.url}/ws/loud`);
    const data = 'x'.repeat(60_000);
    for (let sent = 0; sent < 350; sent += 1) {
      const answer = await publisher.call({ type: 'publish', channel: 'room:deaf', data });
      expect(answer).toMatchObject({ type: 'ok' });
    }
    await publisher.leave();
    await until(
      async () => (await patient.gateway.metric('tidegate_closes_total', { code: '4401' })) - before === 50,
      { what: 'the deaf to be closed' },
    );
    for (const { socket } of peers) socket.destroy();
  },
);

patient.attack(
  {
    does: '20 clients that ask for large answers and never read them',
    answer: 'closed with 4401',
    boundMib: 256,
  },
  async () => {
    const crowd = await Promise.all(
      Array.from({ length: 400 }, (_, at) =>
        TestClient.v1(`${patient.gateway.url}/ws/${'u'.repeat(100)}${at}`),
      ),
    );
    await Promise.all(crowd.map((it) => it.call({ type: 'subscribe', channel: 'room:full' })));
    const before = await patient.gateway.metric('tidegate_closes_total', { code: '4401' });
    const peers = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const peer = await RawPeer.upgrade(patient.gateway.ports.ws, '/ws/greedy', v1);
        peer.stopReading();
        for (let asked = 0; asked < 300; asked += 1)
          peer.send(opcodes.text, `{"type":"presence","ref":${asked},"channel":"room:full"}`);
        return peer;
      }),
    );
    await until(
      async () => (await patient.gateway.metric('tidegate_closes_total', { code: '4401' })) - before === 20,
      { what: 'the greedy to be closed' },
    );
    for (const { socket } of peers) socket.destroy();
    await Promise.all(crowd.map((it) => it.leave()));
  },
);
