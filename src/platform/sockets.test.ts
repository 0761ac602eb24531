import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterAll, expect, test } from 'vitest';
import { until } from '../../test/until.ts';
import { boundSockets } from './sockets.ts';

const servers: Server[] = [];
afterAll(() => {
  for (const server of servers) server.closeAllConnections();
  for (const server of servers) server.close();
});

/** A listener that holds so many sockets, and how many it has. */
async function listener(max: number) {
  const server = createServer((_, response) => void response.end('here'));
  servers.push(server);
  boundSockets(server, max);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const count = () =>
    new Promise<number>((resolve, reject) =>
      server.getConnections((error, found) => (error ? reject(error) : resolve(found))),
    );
  return { port, count };
}

/** Connects from an address of this machine. */
async function from(localAddress: string, port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress });
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

test('closes the new sockets of a peer that has them all', async () => {
  const { port, count } = await listener(3);
  const held: Socket[] = [];
  for (let at = 0; at < 3; at += 1) held.push(await from('127.0.0.2', port));
  await until(async () => (await count()) === 3, { what: 'three sockets' });
  const late = await from('127.0.0.2', port);
  await until(() => late.closed, { what: 'the fourth to be closed' });
  expect(held.map(({ closed }) => closed)).toEqual([false, false, false]);
  expect(await count()).toBe(3);
});

test('closes the oldest of the peer that has the most for the new one of another', async () => {
  const { port, count } = await listener(5);
  const modest = await from('127.0.0.3', port);
  const greedy: Socket[] = [];
  for (let at = 0; at < 4; at += 1) greedy.push(await from('127.0.0.2', port));
  await until(async () => (await count()) === 5, { what: 'five sockets' });
  const probe = await from('127.0.0.4', port);
  probe.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  expect(String((await once(probe, 'data'))[0])).toContain('200 OK');
  await until(() => greedy[0]?.closed, { what: 'the oldest to be closed' });
  expect([modest, ...greedy.slice(1)].map(({ closed }) => closed)).toEqual([false, false, false, false]);
});

test('takes new sockets again once others are gone', async () => {
  const { port, count } = await listener(2);
  for (let round = 0; round < 5; round += 1) {
    const both = [await from('127.0.0.2', port), await from('127.0.0.2', port)];
    await until(async () => (await count()) === 2, { what: 'two sockets' });
    expect(both.some(({ closed }) => closed)).toBe(false);
    for (const socket of both) socket.destroy();
    await until(async () => (await count()) === 0, { what: 'both to be gone' });
  }
});
