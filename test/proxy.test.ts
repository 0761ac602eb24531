// The proxy that misbehaves: what it does wrong by mistake would be blamed on the gateway.

import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest';
import { startProxy, type TcpProxy } from './proxy.ts';
import { until } from './until.ts';

let server: Server;
let proxy: TcpProxy;

beforeAll(async () => {
  server = createServer((socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
});
afterAll(() => void server.close());
beforeEach(async () => {
  const address = server.address();
  proxy = await startProxy({ target: typeof address === 'object' ? (address?.port ?? 0) : 0 });
  onTestFinished(() => proxy.stop());
});

/** A client of the echo behind the proxy. */
async function open() {
  const socket: Socket = connect(proxy.port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  const client = { socket, text: '', error: '', closed: false };
  socket.on('data', (bytes) => {
    client.text += bytes.toString();
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    client.error = error.code ?? '';
  });
  socket.on('close', () => {
    client.closed = true;
  });
  await until(() => socket.readyState === 'open' || client.closed, { what: 'the connection' });
  return client;
}

const echoes = (client: { text: string }, text: string) =>
  until(() => client.text === text, { what: `"${text}"` });

test('passes everything on, both ways, and the end', async () => {
  const client = await open();
  const large = 'x'.repeat(3_000_000);
  client.socket.write(large);
  await echoes(client, large);
  expect([proxy.connections, proxy.accepted]).toEqual([1, 1]);
  client.socket.end();
  await until(() => client.closed && proxy.connections === 0, { what: 'both ends to close' });
  expect(client.error).toBe('');
});

test('holds back what it should, and passes it on in order', async () => {
  const before = await open();
  before.socket.write('a');
  await echoes(before, 'a');
  proxy.stall();
  const after = await open();
  for (const client of [before, after]) client.socket.write('b');
  proxy.delay(20);
  for (const client of [before, after]) client.socket.write('c');
  await until(() => proxy.connections === 2, { what: 'both connections' });
  expect([before.text, after.text]).toEqual(['a', '']);
  proxy.resume();
  await Promise.all([echoes(before, 'abc'), echoes(after, 'bc')]);
});

test('tells connections apart by what they sent first', async () => {
  const [one, two] = [await open(), await open()];
  one.socket.write('name=one ');
  two.socket.write('name=two ');
  await Promise.all([echoes(one, 'name=one '), echoes(two, 'name=two ')]);
  proxy.stall('name=one');
  const late = await open();
  late.socket.write('name=one late');
  for (const client of [one, two]) client.socket.write('more');
  await echoes(two, 'name=two more');
  expect([one.text, late.text]).toEqual(['name=one ', '']);
  proxy.resume();
  await Promise.all([echoes(one, 'name=one more'), echoes(late, 'name=one late')]);
  proxy.reset('name=two');
  await until(() => two.closed, { what: 'the connection to be cut' });
  expect([two.error, one.closed]).toEqual(['ECONNRESET', false]);
});

test('delays everything by as much as it is told', async () => {
  const client = await open();
  proxy.delay(150);
  const sinceMs = performance.now();
  for (const text of ['a', 'b', 'c']) client.socket.write(text);
  await echoes(client, 'abc');
  // There and back.
  expect(performance.now() - sinceMs).toBeGreaterThanOrEqual(299);
});

test('cuts connections, and lets nobody in until it is told to', async () => {
  const client = await open();
  proxy.refuse();
  proxy.reset();
  await until(() => client.closed, { what: 'the connection to be cut' });
  expect(client.error).toBe('ECONNRESET');
  const refused = await open();
  await until(() => refused.closed, { what: 'the connection to be refused' });
  proxy.accept();
  const accepted = await open();
  accepted.socket.write('in');
  await echoes(accepted, 'in');
});

test('cuts everything when it stops, also what is stalled', async () => {
  const client = await open();
  proxy.stall();
  client.socket.write('a');
  await proxy.stop();
  await proxy.stop();
  await until(() => client.closed, { what: 'the connection to be cut' });
});
