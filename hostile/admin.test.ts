import { expect } from 'vitest';
import { MAX_SOCKETS } from '../src/platform/sockets.ts';
import { exchange, RawPeer, upgradeRequest } from '../test/raw.ts';
import { until } from '../test/until.ts';
import { TestClient } from '../test/websocket.ts';
import { many, pour, statusOf } from './peers.ts';
import { openStage } from './stage.ts';

const adminToken = 'token-of-the-attacked';
const { gateway, attack } = await openStage('admin', { ADMIN_TOKEN: adminToken });
const port = gateway.ports.admin;

const put = (body: string, { token = adminToken, length = Buffer.byteLength(body) } = {}) =>
  `PUT /ceiling HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${length}\r\n\r\n${body}`;

attack(
  { does: 'ceilings without the token, or that are none', answer: '401, 400 or 413, and there is none' },
  async () => {
    const good = '{"connections":0,"ratePerSecond":1000,"seconds":600}';
    const bodies = [
      '',
      'null',
      '[]',
      '{}',
      '{"connections":-1,"ratePerSecond":1,"seconds":1}',
      '{"connections":1e999,"ratePerSecond":1e999,"seconds":1e999}',
      '{"connections":"0","ratePerSecond":"1","seconds":"1"}',
      '{"connections":0.5,"ratePerSecond":-1,"seconds":1e12}',
      '{"__proto__":{"connections":0}}',
      '['.repeat(4000),
      'x'.repeat(4097),
      ' '.repeat(1_000_000),
      '\0'.repeat(100),
    ];
    for (const body of bodies)
      expect(statusOf(await exchange(port, put(body))), body.slice(0, 80)).toBeOneOf([400, 413]);
    for (const token of ['', 'wrong', `${adminToken}x`, adminToken.slice(0, -1), '*'])
      expect(statusOf(await exchange(port, put(good, { token })))).toBe(401);
    const headers = { authorization: `Bearer ${adminToken}` };
    const state = await (await fetch(`${gateway.adminUrl}/connections`, { headers })).json();
    expect(state).toMatchObject({ ceiling: null });
  },
);

attack({ does: '50 bodies of a ceiling that never end', answer: 'not kept: 413 at their end' }, async () => {
  await many(50, async () => {
    const peer = await RawPeer.connect(port);
    peer.socket.write(put('', { length: 1e12 }));
    await pour(
      peer,
      Array.from({ length: 100 }, () => Buffer.alloc(65_536, 0x20)),
    );
    peer.socket.destroy();
  });
});

attack(
  { does: '50 connections that ask for metrics ten times each, pipelined', answer: '200 for each' },
  async () => {
    const get = 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n';
    await many(50, async () => {
      const peer = await RawPeer.connect(port);
      peer.socket.write(get.repeat(10));
      const count = () => peer.received.toString('latin1').split('HTTP/1.1 200 ').length - 1;
      await until(() => count() === 10, { what: 'ten answers' });
      peer.socket.destroy();
    });
  },
);

attack(
  {
    does: '1000 upgrades with `moving=true` while there is a ceiling, and lies about it',
    answer: '503 with Retry-After; who does not move gets in',
  },
  async () => {
    const headers = { authorization: `Bearer ${adminToken}` };
    // Above the bystanders, who cannot be asked to move.
    const ceiling = { connections: 2, ratePerSecond: 1, seconds: 60 };
    const set = await fetch(`${gateway.adminUrl}/ceiling`, {
      method: 'PUT',
      headers,
      body: JSON.stringify(ceiling),
    });
    expect(set.status, await set.text()).toBe(200);
    await many(1000, async () => {
      const answer = await exchange(
        gateway.ports.ws,
        upgradeRequest('/ws/mallory?moving=true', { 'Sec-WebSocket-Protocol': 'tidegate.v1' }),
      );
      expect(statusOf(answer)).toBe(503);
      expect(answer).toMatch(/\r\nRetry-After: \d+\r\n/);
    });
    for (const query of [
      '',
      '?moving=false',
      '?moving=TRUE',
      '?moving=true%00',
      '?moving=1&moving=true',
      '?moves=true',
    ])
      await (await TestClient.v1(`${gateway.url}/ws/mallory${query}`)).leave();
    const lifted = await fetch(`${gateway.adminUrl}/ceiling`, { method: 'DELETE', headers });
    expect(lifted.status).toBe(204);
  },
);

attack(
  {
    does: '3000 sockets of one address that say nothing, on the admin listener',
    answer: 'at most 1000 are held; probes from elsewhere are answered all the while',
  },
  async () => {
    const held: RawPeer[] = [];
    await many(3000, async (at) => {
      held.push(await RawPeer.connect(port, '127.0.0.2'));
      if (at % 100 === 0) expect((await fetch(`${gateway.adminUrl}/livez`)).status).toBe(200);
    });
    const open = () => held.filter(({ ended }) => !ended).length;
    await until(() => open() <= MAX_SOCKETS, { what: 'all but a thousand to be closed' });
    for (let probe = 0; probe < 20; probe += 1)
      expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200);
    for (const peer of held) peer.socket.destroy();
  },
);
