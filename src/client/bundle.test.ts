// The client as others get it: one small file, and types that a stranger's compiler takes.

import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, expect, it } from 'vitest';
import { bundleClient, declareClient, tracingEntry } from '../../scripts/client.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const text = await bundleClient();
const tracing = await bundleClient(tracingEntry);
const folder = await mkdtemp(join(tmpdir(), 'tidegate-client-'));
afterAll(() => rm(folder, { recursive: true }));

it('is less than 6.5 KB gzipped, and what traces is apart from it', () => {
  expect(gzipSync(text, { level: 9 }).length).toBeLessThan(6500);
  expect(text).not.toContain('messaging.');
  expect(gzipSync(tracing, { level: 9 }).length).toBeLessThan(1000);
});

it('depends on nothing, and brings no texts that only docs need', () => {
  for (const each of [text, tracing]) expect(each).not.toMatch(/\bimport\b|\brequire\b|from"/);
  expect(text).not.toContain('The gateway');
  expect(text).not.toContain('MAX_MESSAGE_BYTES');
});

it('runs from its one file', async () => {
  const file = join(folder, 'client.mjs');
  await writeFile(file, text);
  const { connect } = (await import(/* @vite-ignore */ file)) as typeof import('./client.ts');
  const gateway = await startLocalGateway({
    CHANNELS: '{namespaces: {room: {subscribe: anyone, publish: anyone}}}',
  });
  try {
    await using client = connect({ url: `${gateway.url}/ws/ann` });
    const heard = new Promise((resolve) => client.channel('room:1').subscribe(resolve));
    await client.channel('room:1').publish('hello');
    expect(await heard).toMatchObject({ channel: 'room:1', from: 'ann', data: 'hello' });
  } finally {
    await gateway.stop();
  }
});

it('has types that another project can use by the name of the package', async () => {
  // Laid out as npm would: the declarations are where package.json says.
  const home = join(folder, 'node_modules/tidegate');
  await mkdir(home, { recursive: true });
  const { name, type, exports } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  await writeFile(join(home, 'package.json'), JSON.stringify({ name, type, exports }));
  declareClient(join(home, 'dist/client/types'));
  await writeFile(
    join(folder, 'page.ts'),
    `
      import { type Message, connect } from 'tidegate/client';
      import { type OpenTelemetryLike, type SpanLike, type TracerLike, traced } from 'tidegate/client/tracing';
      declare const otel: OpenTelemetryLike<object, SpanLike>;
      declare const tracer: TracerLike<object, SpanLike>;
      const client = connect({ url: 'wss://example.com/ws', token: async () => 'token' });
      client.on('gap', ({ channel, reason }): [string | undefined, string] => [channel, reason]);
      const room = client.channel<{ text: string }>('room:1');
      const subscription = room.subscribe(({ data }: Message<{ text: string }>) => data.text.length);
      room.subscribe(traced(otel, tracer, ({ data }: Message<{ text: string }>) => data.text.length));
      void room.publish({ text: 'hello' }, { traceparent: '00-…' });
      const position: string | undefined = subscription.position;
      const published: Promise<{ id: string | undefined }> = room.publish({ text: 'hello' });
      void [position, published];
      // @ts-expect-error a number is no text
      void room.publish({ text: 1 });
      // @ts-expect-error there is no such event
      client.on('nothing', () => {});
    `,
  );
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const options = [
    '--ignoreConfig',
    '--noEmit',
    '--strict',
    '--target',
    'es2022',
    '--lib',
    'es2022,dom,esnext.disposable',
  ];
  for (const resolution of [
    ['--module', 'nodenext'],
    ['--module', 'esnext', '--moduleResolution', 'bundler'],
  ]) {
    const args = [tsc, ...options, '--types', '', ...resolution, 'page.ts'];
    const { stdout, status } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
    expect(stdout).toBe('');
    expect(status).toBe(0);
  }
});
