import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import fc from 'fast-check';
import { afterAll, afterEach, expect, test } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { TestClient } from '../../test/websocket.ts';
import { decodeAnswer, PollError, Poller } from './poll.ts';

const poller = new Poller();
afterAll(() => poller.close());

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** A pod that answers in this way. */
async function pod(answer: RequestListener) {
  server = createServer(answer);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  return { host: '127.0.0.1', port, token: 'the-token' };
}

const ceiling = {
  connections: 1,
  expiresAfterMs: 60_000,
  shedPerSecond: 0,
  order: 'random',
  minAgeSeconds: 0,
  plain: false,
} as const;

test('understands a gateway, sets its ceiling and lifts it', async () => {
  const token = 'a-token-of-16-or-more';
  const gateway = await startLocalGateway({ ADMIN_TOKEN: token });
  const client = await TestClient.v1(`${gateway.url}/ws/ann`);
  const address = { host: '127.0.0.1', port: gateway.ports.admin, token };
  const over = new AbortController();
  expect(await poller.ask(address)).toMatchObject({
    connections: 1,
    phase: 'serving',
    bus: 'up',
    accepted: 1,
    deliveries: expect.any(Number),
    startedAtMs: expect.any(Number),
    drainSeconds: 0,
    ceiling: null,
    shed: { asked: 0, moved: 0, stayed: 0, outstanding: 0 },
  });
  await poller.setCeiling(address, ceiling, over.signal);
  expect((await poller.ask(address)).ceiling).toMatchObject({ connections: 1 });
  await poller.liftCeiling(address, over.signal);
  expect((await poller.ask(address)).ceiling).toBeNull();
  await expect(poller.ask({ ...address, token: 'another-token-of-mine' })).rejects.toMatchObject({
    fault: 'unauthorized',
  });
  over.abort();
  await expect(poller.setCeiling(address, ceiling, over.signal)).rejects.toBeInstanceOf(PollError);
  await client.leave();
  await gateway.stop();
});

test('shows its token, and asks nothing else of a pod', async () => {
  const seen: string[] = [];
  const address = await pod((request, response) => {
    seen.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    response.end('{"connections":7}');
  });
  expect(await poller.ask(address)).toMatchObject({ connections: 7, movable: undefined, bus: 'unknown' });
  expect(seen).toEqual(['GET /connections Bearer the-token']);
});

test('takes no answer for an answer', async () => {
  const cases: [RequestListener, string][] = [
    [(_, response) => response.writeHead(404).end('{"connections":1}'), 'no-contract'],
    [(_, response) => response.writeHead(302, { location: '/' }).end(), 'no-contract'],
    [(_, response) => response.writeHead(401).end(), 'unauthorized'],
    [(_, response) => response.writeHead(503).end(), 'unreachable'],
    [(_, response) => response.end('<html>'), 'no-contract'],
    [(_, response) => response.end('{"connections":"many"}'), 'no-contract'],
    [(_, response) => response.end('{"connections":-1}'), 'no-contract'],
    [(_, response) => response.end('null'), 'no-contract'],
    [(_, response) => response.end(`{"connections":1,"x":"${'x'.repeat(100_000)}"}`), 'no-contract'],
    [(_, response) => response.destroy(), 'unreachable'],
  ];
  for (const [answer, fault] of cases) {
    await expect(poller.ask(await pod(answer))).rejects.toMatchObject({ fault });
    server?.closeAllConnections();
    server?.close();
  }
  await expect(poller.ask({ host: '127.0.0.1', port: 1, token: undefined })).rejects.toMatchObject({
    fault: 'unreachable',
  });
});

test('does not wait for a pod that never comes to an end', async () => {
  const silent = await pod(() => {});
  await expect(poller.ask(silent)).rejects.toMatchObject({ fault: 'unreachable' });
  server?.closeAllConnections();
  const trickling = await pod((_, response) => {
    const timer = setInterval(() => response.write(' '), 100);
    response.on('close', () => clearInterval(timer));
  });
  await expect(poller.ask(trickling)).rejects.toMatchObject({ fault: 'unreachable' });
});

test('decodes whatever a pod may say, or says that it is not of the contract', () => {
  const field = fc.oneof(fc.jsonValue(), fc.constant(Number.NaN), fc.constant(1e308));
  const names = [
    'connections maxConnections phase startedAt accepted refused deliveries cpuSeconds movable drainSeconds bus ceiling shed',
  ].flatMap((it) => it.split(' '));
  const bodies = fc.record(Object.fromEntries(names.map((name) => [name, field])), { requiredKeys: [] });
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        bodies.map((it) => JSON.stringify(it)),
      ),
      (said) => {
        try {
          const { connections, refused, shed } = decodeAnswer(said, 0);
          expect(Number.isSafeInteger(connections) && connections >= 0).toBe(true);
          expect(refused ?? 0).toBeGreaterThanOrEqual(0);
          expect(shed?.asked ?? 0).toBeGreaterThanOrEqual(0);
        } catch (error) {
          expect(error).toMatchObject({ fault: 'no-contract' });
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test('keeps apart what was refused and what was sent on', () => {
  const said = '{"connections":1,"refused":{"capacity":2,"rate":3,"moving":17}}';
  expect(decodeAnswer(said, 5)).toMatchObject({ refused: 5, refusedMoving: 17, atMs: 5 });
});

test('takes no number from which no others can be made: a rate of it would be none', () => {
  const said =
    '{"connections":1,"cpuSeconds":1e308,"drainSeconds":1e300,"ceiling":{"connections":1,"expiresInMs":-1}}';
  expect(decodeAnswer(said, 0)).toMatchObject({
    connections: 1,
    cpuSeconds: undefined,
    drainSeconds: undefined,
    ceiling: undefined,
  });
});
