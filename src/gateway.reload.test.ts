// What a gateway does when its files change while it runs. How changes are noticed is in platform/files.test.ts.

import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type LocalGateway, startLocalGateway } from '../test/local-gateway.ts';
import { until } from '../test/until.ts';
import { TestClient } from '../test/websocket.ts';

const folder = mkdtempSync(join(tmpdir(), 'tidegate-reload-'));
const gateways: LocalGateway[] = [];
const clients: TestClient[] = [];
afterAll(async () => {
  await Promise.all(clients.map((client) => client.leave()));
  await Promise.all(gateways.map((gateway) => gateway.stop()));
  rmSync(folder, { recursive: true });
});

async function start(env: Record<string, string>): Promise<LocalGateway> {
  const gateway = await startLocalGateway(env);
  gateways.push(gateway);
  return gateway;
}

let files = 0;
function file(text: string): string {
  const path = join(folder, String(files++));
  writeFileSync(path, text);
  return path;
}

/** Changes a file and waits until the gateway has taken it, or has refused it, and returns its log line. */
async function change(gateway: LocalGateway, path: string, text: string, level: 30 | 50 = 30) {
  const lines = () =>
    gateway.log.filter(({ msg }) => msg?.startsWith('the file has changed and ')).slice(before);
  const before = gateway.log.filter(({ msg }) => msg?.startsWith('the file has changed and ')).length;
  writeFileSync(path, text);
  await until(() => lines().length > 0, { what: 'the change to be noticed' });
  expect(lines()).toEqual([expect.objectContaining({ level })]);
  return lines()[0];
}

async function v1(url: string, token?: string): Promise<TestClient> {
  const client = await TestClient.v1(url, {
    ...(token !== undefined && { headers: { authorization: `Bearer ${token}` } }),
  });
  clients.push(client);
  return client;
}

describe.concurrent('a change of API_KEYS_FILE', () => {
  it('lets new keys in and refuses removed ones at once; a file without keys changes nothing', async () => {
    const path = file('old\n');
    const gateway = await start({ API_KEYS_FILE: path });
    const statusWith = async (key: string) => {
      const url = `http://127.0.0.1:${gateway.ports.api}/v1/channels`;
      return (await fetch(url, { headers: { authorization: `Bearer ${key}` } })).status;
    };
    expect([await statusWith('old'), await statusWith('new')]).toEqual([200, 401]);
    expect(await change(gateway, path, 'new\nold\n')).toMatchObject({ file: 'API_KEYS_FILE', keys: 2 });
    expect([await statusWith('old'), await statusWith('new')]).toEqual([200, 200]);
    await change(gateway, path, 'new\n');
    expect([await statusWith('old'), await statusWith('new')]).toEqual([401, 200]);
    expect(await change(gateway, path, '# none\n', 50)).toMatchObject({
      faults: ['it holds no key: write one a line'],
    });
    expect([await statusWith('old'), await statusWith('new')]).toEqual([401, 200]);
    const reloads = (result: string) =>
      gateway.metric('tidegate_config_reloads_total', { file: 'API_KEYS_FILE', result });
    expect([await reloads('ok'), await reloads('failed')]).toEqual([2, 1]);
    expect(await gateway.metric('tidegate_config_file_valid')).toBe(0);
  });
});

describe.concurrent('a change of JWT_SECRET_FILE', () => {
  const [old, young] = ['the old secret, long enough for HS256', 'the new secret, long enough for HS256'];
  const exp = Math.floor(Date.now() / 1000) + 3600;
  function tokenBy(secret: string, sub: string): string {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'HS256' })}.${encode({ sub, exp })}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  }

  it('accepts new secrets beside old ones, then only the new; who is connected stays', async () => {
    const path = file(`${old}\n`);
    const gateway = await start({ AUTH: '', JWT_SECRET_FILE: path });
    const url = `${gateway.url}/ws`;
    const refused = async (token: string) => {
      const client = await TestClient.open(url, { headers: { authorization: `Bearer ${token}` } });
      return (await client.close()).code;
    };
    const ann = await v1(url, tokenBy(old, 'ann'));
    expect(await refused(tokenBy(young, 'bob'))).toBe(1008);

    expect(await change(gateway, path, `${young}\n${old}\n`)).toMatchObject({ file: 'JWT_SECRET_FILE' });
    const bob = await v1(url, tokenBy(young, 'bob'));
    await v1(url, tokenBy(old, 'cid'));

    await change(gateway, path, `${young}\n`);
    expect(await refused(tokenBy(old, 'dan'))).toBe(1008);
    // Ann's token was good when she came, and she stays as long as it says; only it gets her in no more.
    expect(await ann.call({ type: 'refresh', token: tokenBy(old, 'ann') })).toMatchObject({
      type: 'error',
      code: 'token_refused',
    });
    expect(await ann.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
    expect(await ann.call({ type: 'refresh', token: tokenBy(young, 'ann') })).toMatchObject({ type: 'ok' });
    expect(await bob.call({ type: 'ping' })).toMatchObject({ type: 'ok' });

    await change(gateway, path, '\n', 50);
    await v1(url, tokenBy(young, 'eve'));
    for (const line of gateway.log) expect(JSON.stringify(line)).not.toMatch(/long enough for HS256/);
  });
});

describe.concurrent('a change of ADMIN_TOKEN_FILE', () => {
  it('asks for the new token at once, and keeps the old one where the new is none', async () => {
    const path = file('the-old-admin-token\n');
    const gateway = await start({ ADMIN_TOKEN_FILE: path });
    const statusWith = async (token: string) =>
      (await fetch(`${gateway.adminUrl}/connections`, { headers: { authorization: `Bearer ${token}` } }))
        .status;
    await change(gateway, path, 'the-new-admin-token\n');
    expect([await statusWith('the-old-admin-token'), await statusWith('the-new-admin-token')]).toEqual([
      401, 200,
    ]);
    expect(await change(gateway, path, 'short\n', 50)).toMatchObject({
      file: 'ADMIN_TOKEN_FILE',
      faults: [expect.stringMatching(/^it must be 16 or more/)],
    });
    expect(await statusWith('the-new-admin-token')).toBe(200);
  });
});

describe.concurrent('a change of CHANNELS_FILE', () => {
  const policy = (namespaces: Record<string, string>, send = 'anyone') =>
    `send: ${send}\nnamespaces: {${Object.entries(namespaces)
      .map(([name, namespace]) => `${name}: {${namespace}}`)
      .join(', ')}}\n`;
  const open = 'subscribe: anyone, publish: anyone';

  it('counts for the next command of everybody, and leaves subscriptions that are still allowed alone', async () => {
    const path = file(policy({ room: open }));
    const gateway = await start({ CHANNELS_FILE: path });
    const [ann, bob] = await Promise.all([v1(`${gateway.url}/ws/ann`), v1(`${gateway.url}/ws/bob`)]);
    await ann.call({ type: 'subscribe', channel: 'room:1' });
    const publish = (data: unknown) => bob.call({ type: 'publish', channel: 'room:1', data });
    const news = () => bob.call({ type: 'subscribe', channel: 'news:1' });
    expect(await news()).toMatchObject({ code: 'forbidden' });

    const shorter = `${open}, maxMessageBytes: 20`;
    const changed = policy({ room: shorter, news: `${open}, durable: {messages: 5, ageSeconds: 60}` }, 'api');
    expect(await change(gateway, path, changed)).toMatchObject({ namespaces: 3, closed: 0 });
    expect(await news()).toMatchObject({ type: 'ok' });
    expect(await publish('x'.repeat(30))).toMatchObject({ code: 'too_large' });
    expect(await publish('short')).toMatchObject({ type: 'ok' });
    expect(await ann.json()).toMatchObject({ type: 'message', data: 'short' });
    expect(await bob.call({ type: 'send', user: 'ann', data: 'x' })).toMatchObject({ code: 'forbidden' });

    await change(
      gateway,
      path,
      policy({
        room: 'subscribe: anyone, publish: api',
        news: `${open}, durable: {messages: 9, ageSeconds: 9}`,
      }),
    );
    expect(await publish('short')).toMatchObject({ code: 'forbidden' });
    expect(await ann.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
  });

  it('closes who is subscribed to what was taken away, and tells which it was when they are back', async () => {
    const path = file(policy({ room: open, doc: open, ws_broadcast: open }));
    const gateway = await start({ CHANNELS_FILE: path });
    const [ann, bob, cid] = await Promise.all(
      ['ann', 'bob', 'cid'].map((it) => v1(`${gateway.url}/ws/${it}`)),
    );
    const plain = await TestClient.open(`${gateway.url}/ws/dan`);
    clients.push(plain);
    await ann?.call({ type: 'subscribe', channel: 'doc:1' });
    await bob?.call({ type: 'subscribe', channel: 'room:1' });
    await cid?.call({ type: 'subscribe', channels: ['room:1', 'gone:1'] });
    await cid?.call({ type: 'unsubscribe', channel: 'room:1' });

    // Doc is left to those whose token names it, and room no longer exists.
    const changed = policy({ doc: 'subscribe: claim, publish: anyone', ws_broadcast: open });
    expect(await change(gateway, path, changed)).toMatchObject({ closed: 2 });
    for (const client of [ann, bob]) {
      expect(await client?.close()).toEqual({
        code: 4407,
        reason: expect.stringMatching(/^a channel was taken away; reconnect after \d{1,5} ms$/),
      });
    }
    expect(await cid?.call({ type: 'ping' })).toMatchObject({ type: 'ok' });
    expect(plain.ended).toBeUndefined();
    const again = await v1(`${gateway.url}/ws/ann`);
    for (const channel of ['doc:1', 'room:1'])
      expect(await again.call({ type: 'subscribe', channel })).toMatchObject({ code: 'forbidden' });

    // What comes back may be used again, by those who linger and by those who come.
    await change(gateway, path, policy({ room: open, doc: open, ws_broadcast: open }));
    for (const channel of ['doc:1', 'room:1'])
      expect(await again.call({ type: 'subscribe', channel })).toMatchObject({ type: 'ok' });
    expect(await cid?.call({ type: 'publish', channel: 'room:1', data: 'back' })).toMatchObject({
      type: 'ok',
    });
    expect(await again.json()).toMatchObject({ data: 'back' });
  });

  it('takes plain clients out of a channel that was taken away as well', async () => {
    const path = file(policy({ ws_broadcast: open }));
    const gateway = await start({ CHANNELS_FILE: path });
    const plain = await TestClient.open(`${gateway.url}/ws/dan`);
    clients.push(plain);
    await until(async () => (await gateway.metric('tidegate_channels')) === 1, { what: 'dan to be in it' });
    await change(gateway, path, policy({ ws_broadcast: 'subscribe: api, publish: api' }));
    expect(await plain.close()).toMatchObject({ code: 4407 });
  });

  it('begins and ends presence for those who are there', async () => {
    const path = file(policy({ room: open }));
    const gateway = await start({ CHANNELS_FILE: path });
    const ann = await v1(`${gateway.url}/ws/ann`);
    await ann.call({ type: 'subscribe', channel: 'room:1' });
    const members = () => ann.call({ type: 'presence', channel: 'room:1' });
    expect(await members()).toMatchObject({ code: 'no_presence' });
    await change(gateway, path, policy({ room: `${open}, presence: true, presenceEvents: true` }));
    await until(async () => (await members()).total === 1, { what: 'ann to be present' });
    const bob = await v1(`${gateway.url}/ws/bob`);
    await bob.call({ type: 'subscribe', channel: 'room:1' });
    await until(() => ann.inbox.some((text) => text.includes('"bob"')), { what: 'ann to hear of bob' });
    await change(gateway, path, policy({ room: open }));
    expect(await gateway.metric('tidegate_presence_members')).toBe(0);
    await bob.leave();
    await change(gateway, path, policy({ room: `${open}, presence: true` }));
    await until(async () => (await members()).total === 1, { what: 'ann alone to be present' });
  });

  it('is refused where it is not valid, with every fault', async () => {
    const path = file(policy({ room: open }));
    const gateway = await start({ CHANNELS_FILE: path });
    const ann = await v1(`${gateway.url}/ws/ann`);
    expect(await change(gateway, path, 'namespaces: [', 50)).toMatchObject({ file: 'CHANNELS_FILE' });
    expect(await change(gateway, path, policy({ room: 'subscribe: nobody' }), 50)).toMatchObject({
      faults: [
        expect.stringMatching(/^namespaces.room.subscribe: /),
        expect.stringMatching(/^namespaces.room.publish: /),
      ],
    });
    expect(await ann.call({ type: 'subscribe', channel: 'room:1' })).toMatchObject({ type: 'ok' });
  });

  it('is refused as a whole where it cannot be done while others run', async () => {
    const durable = `${open}, durable: {messages: 5, ageSeconds: 60}`;
    const path = file(policy({ room: open, doc: durable }));
    const gateway = await start({ CHANNELS_FILE: path });
    const ann = await v1(`${gateway.url}/ws/ann`);
    const bob = await v1(`${gateway.url}/ws/bob`);
    const extra = () => bob.call({ type: 'subscribe', channel: 'extra:1' });
    const refused = await change(
      gateway,
      path,
      policy({ room: durable, doc: open, ws_broadcast: open, extra: open }),
      50,
    );
    expect(refused).toMatchObject({
      faults: [
        expect.stringMatching(/^namespaces.ws_broadcast: it was raw /),
        expect.stringMatching(
          /^namespaces.room: it was neither raw nor durable and would be durable, .*restart/,
        ),
        expect.stringMatching(/^namespaces.doc: it was durable and would be neither raw nor durable/),
      ],
    });
    expect(await extra()).toMatchObject({ code: 'forbidden' });
    expect(await ann.call({ type: 'subscribe', channel: 'doc:1' })).toMatchObject({
      position: expect.anything(),
    });
    // It is also what it was where it had gone in between.
    await change(gateway, path, policy({ extra: open }));
    await ann.close();
    await change(gateway, path, policy({ doc: `${open}, raw: true` }), 50);
    expect(await extra()).toMatchObject({ type: 'ok' });
    await change(gateway, path, policy({ doc: durable, extra: open }));
    expect(await bob.call({ type: 'subscribe', channel: 'doc:1' })).toMatchObject({ type: 'ok' });
  });
});
