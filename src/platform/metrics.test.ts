import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { exchange, upgradeRequest } from '../../test/raw.ts';
import { until } from '../../test/until.ts';
import { TestClient } from '../../test/websocket.ts';
import { newId } from './ids.ts';
import { createMetrics, metricsOfNamespace } from './metrics.ts';

describe('createMetrics', () => {
  it('gives every metric a name that is ours, a help, and labels with few values', async () => {
    const { registry, exposition, addNamespaces, ...metrics } = createMetrics('1.2.3');
    const described = await registry.getMetricsAsJSON();
    for (const { name, help } of described) expect(help, name).not.toBe('');
    const own = described.filter(({ name }) => !/^tidegate_(process|nodejs)_/.test(name));
    expect(own).toHaveLength(Object.keys(metrics).length);
    for (const { name, help } of own) {
      expect(name).toMatch(/^tidegate_[a-z_]+$/);
      expect(help, name).toMatch(/\.$/);
    }
    const labels = new Set(
      Object.values(metrics).flatMap((metric) =>
        'labelNames' in metric ? (metric.labelNames as string[]) : [],
      ),
    );
    const known = [
      'channel_namespace',
      'protocol',
      'code',
      'reason',
      'action',
      'outcome',
      'file',
      'result',
      'version',
      'node',
    ];
    for (const label of labels) expect(known).toContain(label);
  });

  it('has every series from the start, so that no first event is hidden from a rate', async () => {
    const metrics = createMetrics('1');
    metrics.addNamespaces(['room']);
    const text = await metrics.registry.metrics();
    expect(text).toContain('\ntidegate_refusals_total{reason="capacity"} 0\n');
    expect(text).toContain('\ntidegate_deliveries_total{channel_namespace="room"} 0\n');
    expect(text).toContain(
      '\ntidegate_publish_failures_total{channel_namespace="room",reason="overloaded"} 0\n',
    );
    expect(text).toContain('\ntidegate_delivery_latency_seconds_count{channel_namespace="room"} 0\n');
  });

  it('tells a trace by an exemplar to those who accept OpenMetrics, and plain text to all others', async () => {
    const metrics = createMetrics('1');
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    metricsOfNamespace(metrics, 'room').observeLatency(0.003, traceId);
    metrics.opens.inc({ protocol: 'v1' });
    for (const _ of ['once', 'and again, because the library renames what it tells']) {
      const open = await metrics.exposition('application/openmetrics-text;version=1.0.0,text/plain;q=0.5');
      expect(open.type).toMatch(/^application\/openmetrics-text/);
      expect(open.text).toMatch(
        new RegExp(`le="0.005",channel_namespace="room"} 1 # {trace_id="${traceId}"} 0.003 `),
      );
      expect(open.text).toContain('# TYPE tidegate_opens counter\n');
      expect(open.text).toContain('\ntidegate_opens_total{protocol="v1"} 1\n');
      expect(open.text).toMatch(/# EOF\n$/);
      const plain = await metrics.exposition(undefined);
      expect(plain.type).toMatch(/^text\/plain/);
      expect(plain.text).toContain('# TYPE tidegate_opens_total counter\n');
      expect(plain.text).toContain('\ntidegate_opens_total{protocol="v1"} 1\n');
      expect(plain.text).not.toContain(traceId);
    }
  });

  it('keeps the metrics of two gateways in one process apart', async () => {
    const [one, two] = [createMetrics('1'), createMetrics('2')];
    one.opens.inc({ protocol: 'v1' });
    expect(await one.registry.metrics()).toContain('tidegate_opens_total{protocol="v1"} 1');
    expect(await two.registry.metrics()).toContain('tidegate_opens_total{protocol="v1"} 0');
    expect(await two.registry.metrics()).toContain('tidegate_build_info{version="2"');
  });

  it('asks for what is read only when it is scraped', async () => {
    const metrics = createMetrics('1');
    metrics.connections.read = () => 7;
    expect(await metrics.registry.metrics()).toContain('\ntidegate_connections 7\n');
  });
});

describe('the metrics of a gateway', () => {
  it('do not become more with 10,000 random channels and users, and whatever codes and names there are', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidegate-metrics-'));
    writeFileSync(join(folder, 'keys'), 'the-key\n');
    const gateway = await startLocalGateway({
      API_KEYS_FILE: join(folder, 'keys'),
      CHANNELS:
        '{namespaces: {room: {subscribe: anyone, publish: anyone, presence: true, presenceEvents: true}, ws_broadcast: {subscribe: anyone, publish: anyone, raw: true}}}',
      MAX_CHANNELS_PER_CONNECTION: '100000',
      ALLOWED_ORIGINS: 'https://app.example.com',
    });
    const api = async (path: string, body: unknown) => {
      const headers = { authorization: 'Bearer the-key', 'content-type': 'application/json' };
      const response = await fetch(`http://127.0.0.1:${gateway.ports.api}${path}`, {
        method: 'POST',
        headers,
        body: JSON.stringify(body),
      });
      return response.text();
    };

    /** All that a gateway does, to so many channels and users whose names were never seen before. */
    async function doEverything(rounds: number, perRound: number): Promise<void> {
      for (let round = 0; round < rounds; round += 1) {
        const names = Array.from({ length: perRound }, newId);
        const client = await TestClient.v1(`${gateway.url}/ws/${newId()}`);
        const plain = await TestClient.open(`${gateway.url}/ws/${newId()}`);
        const guest = await TestClient.open(`${gateway.url}/ws`);
        const channels = names.map((name) => `room:${name}`);
        expect(await client.call({ type: 'subscribe', channels })).toMatchObject({ type: 'ok' });
        await client.call({ type: 'subscribe', channels: names });
        for (const name of names) client.send({ type: 'send', user: name, data: name });
        for (const [at, name] of names.slice(0, 50).entries()) {
          client.send({ type: 'publish', channel: channels[at] ?? '', data: name });
          client.send({ type: name, ref: name });
          client.send({ type: 'presence', channel: name });
          if (at % 8 === 7) await client.call({ type: 'ping' });
        }
        plain.send(newId());
        await api('/v1/publish/many', { messages: channels.map((channel) => ({ channel, data: 1 })) });
        await api(`/v1/publish`, { channel: newId(), data: 1 });
        await api(`/v1/${newId()}`, {});
        await api(`/v1/users/${client.ws.url.split('/').at(-1)}/disconnect`, {
          code: 4500 + round,
          reason: newId(),
        });
        await client.close();
        guest.ws.close(3000 + round);
        await guest.close();
        plain.ws.close(4000 + round);
        await plain.close();
        await exchange(gateway.ports.ws, upgradeRequest(`/${newId()}`));
        await exchange(gateway.ports.ws, upgradeRequest(`/ws/%00${newId()}`));
        await exchange(gateway.ports.ws, upgradeRequest('/ws', { Origin: `https://${newId()}.example` }));
        await exchange(gateway.ports.ws, `${newId()} ${newId()}\r\n\r\n`);
      }
      await until(async () => (await gateway.metric('tidegate_connections')) === 0, {
        what: 'the connections to end',
      });
    }

    /** The names of all series, without their values. */
    async function series(): Promise<string[]> {
      const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
      // Those of Node itself are as many as it has kinds of garbage collection and of handles, whatever clients do.
      const lines = text.split('\n').filter((line) => /^tidegate_(?!nodejs_)/.test(line));
      return lines.map((line) => line.slice(0, line.lastIndexOf(' '))).sort();
    }

    // Nothing has happened yet: whatever happens later must have its series already.
    const before = await series();
    expect(before.length).toBeGreaterThan(50);
    await doEverything(10, 1000);
    expect(await series()).toEqual(before);
    expect(
      await gateway.metric('tidegate_messages_in_total', { channel_namespace: 'room' }),
    ).toBeGreaterThanOrEqual(10_000);
    await gateway.stop();
    rmSync(folder, { recursive: true });
  });
});
