// Takes docs/images/demo.png: three people on two gateways, one of which has been drained and one line cut by hand.
// Not a part of any check, as no two are the same: node scripts/screenshot.ts [FILE [light|dark [WIDTH [HEIGHT]]]]

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { startBalancer } from '../test/balancer.ts';
import { launchBrowser } from '../test/browser.ts';
import { startGateway } from '../test/gateway.ts';
import { startRedis } from '../test/redis.ts';

const root = new URL('../', import.meta.url);
const [
  file = fileURLToPath(new URL('docs/images/demo.png', root)),
  theme = 'light',
  width = '1280',
  height = '800',
] = process.argv.slice(2);
const size = { width: Number(width), height: Number(height) };

type Point = readonly [x: number, y: number];

/** Points along a curve. */
const along = (count: number, at: (share: number) => Point): Point[] =>
  Array.from({ length: count }, (_, index) => at(index / (count - 1)));
const wave = (y: number, from: number, to: number) =>
  along(40, (share) => [from + (to - from) * share, y + 0.022 * Math.sin(share * 35)]);
const ray = (angle: number): Point[] =>
  [1.35, 1.95].map((far) => [0.83 + 0.055 * far * Math.cos(angle), 0.22 + 0.1 * far * Math.sin(angle)]);

const boat: Point[][] = [
  [
    [0.28, 0.62],
    [0.34, 0.76],
    [0.6, 0.76],
    [0.67, 0.62],
    [0.28, 0.62],
  ],
  [
    [0.46, 0.62],
    [0.46, 0.18],
    [0.64, 0.56],
    [0.46, 0.56],
  ],
  [
    [0.46, 0.22],
    [0.32, 0.56],
    [0.46, 0.56],
  ],
];
const sea = [wave(0.83, 0.06, 0.94), wave(0.91, 0.12, 0.88)];
const sun = [
  along(30, (share) => [0.83 + 0.055 * Math.cos(share * 6.29), 0.22 + 0.1 * Math.sin(share * 6.29)]),
  ...along(9, (share) => [share * 6.283, 0])
    .slice(1)
    .map(([angle]) => ray(angle)),
];

const redis = await startRedis();
const env = {
  REDIS_URL: redis.url,
  DEMO: 'true',
  CHANNELS: readFileSync(new URL('demo/channels.yaml', root), 'utf8'),
};
const [one, two] = await Promise.all([startGateway({ ...env, DRAIN_SECONDS: '8' }), startGateway(env)]);
const balancer = await startBalancer(one.ports.ws);
const browser = await launchBrowser();
try {
  await takePicture();
} finally {
  await browser.close();
  await balancer.stop();
  await Promise.all([one.stop('SIGKILL'), two.stop('SIGKILL')]);
  await redis.stop();
}

async function takePicture(): Promise<void> {
  const ann = await open(balancer.port, 'ann');
  const bob = await open(two.ports.ws, 'bob');
  const cleo = await open(two.ports.ws, 'cleo');

  await say(ann, 'Good morning! Who draws today?');
  await draw(bob, boat);
  await say(bob, 'A boat. Somebody add a sun, please.');
  await draw(cleo, sun);
  await say(cleo, 'Done. And the sea?');
  await draw(ann, sea);
  await say(ann, 'High tide.');
  await write(bob, 'ann', 'Shall we send her out?');
  await ann.waitForSelector('#letters .text');
  await write(ann, 'bob', 'Yes. I cut my line now: watch.');
  await sleep(14_000);

  await ann.click('#away');
  await sleep(1000);
  await say(bob, 'ann is away. Will she see this?');
  await say(cleo, 'She will.');
  await ann.waitForSelector('#status[data-state=open]');
  await sleep(1000);
  await say(ann, 'I do, and nothing is missing.');
  await cleo.click('#wave');
  await sleep(6000);

  balancer.use(two.ports.ws);
  await say(bob, 'Now I restart your gateway.');
  await one.stop();
  await say(ann, 'Did you? I noticed nothing.');
  await bob.click('#wave');
  await sleep(8000);
  await point(bob, [0.69, 0.5]);
  await point(cleo, [0.9, 0.42]);
  await sleep(1000);
  await ann.bringToFront();
  await ann.locator('#text').blur();
  await ann.mouse.move(0, size.height - 1);
  await ann.screenshot({ path: file, fullPage: size.width < 760 });
}

async function open(port: number, name: string): Promise<Page> {
  const context = await browser.newContext({
    viewport: size,
    colorScheme: theme === 'dark' ? 'dark' : 'light',
  });
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${port}/?name=${name}`);
  await page.waitForSelector('#status[data-state=open]');
  return page;
}

async function say(page: Page, text: string): Promise<void> {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
  await sleep(900);
}

async function write(page: Page, to: string, text: string): Promise<void> {
  await page.click(`#peers button[value=${to}]`);
  await page.fill('#letter', text);
  await page.press('#letter', 'Enter');
}

async function draw(page: Page, strokes: readonly (readonly Point[])[]): Promise<void> {
  await page.locator('#canvas').scrollIntoViewIfNeeded();
  for (const [first, ...rest] of strokes) {
    if (first === undefined) continue;
    await point(page, first);
    await page.mouse.down();
    for (const next of rest) await point(page, next);
    await page.mouse.up();
    await sleep(60);
  }
}

async function point(page: Page, [x, y]: Point): Promise<void> {
  const box = (await page.locator('#canvas').boundingBox()) ?? { x: 0, y: 0, width: 0, height: 0 };
  await page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 4 });
}
