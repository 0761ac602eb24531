import { readFileSync } from 'node:fs';
import type { BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startBalancer } from '../../test/balancer.ts';
import { launchBrowser, whyNoBrowser } from '../../test/browser.ts';
import { startGateway } from '../../test/gateway.ts';
import { startLocalGateway } from '../../test/local-gateway.ts';
import { startRedis } from '../../test/redis.ts';
import { until } from '../../test/until.ts';
import { DemoPage } from './demo.ts';

const CHANNELS = readFileSync(new URL('../../demo/channels.yaml', import.meta.url), 'utf8');

describe('the demo page', () => {
  it('is there where DEMO is on, and nowhere else', async () => {
    const on = await startLocalGateway({ DEMO: 'true', CHANNELS });
    const off = await startLocalGateway();
    onTestFinished(async () => void (await Promise.all([on.stop(), off.stop()])));
    const get = async ({ url }: { url: string }, path: string) => {
      const { status, headers } = await fetch(`${url.replace('ws', 'http')}${path}`);
      return [status, headers.get('content-type')];
    };
    for (const [path, type] of [
      ['/', 'text/html'],
      ['/demo.js', 'text/javascript'],
      ['/demo.css', 'text/css'],
      ['/client/client.ts', 'text/javascript'],
    ] as const) {
      expect(await get(on, path)).toEqual([200, `${type}; charset=utf-8`]);
      expect(await get(off, path)).toEqual([404, 'text/plain; charset=utf-8']);
    }
    for (const path of [
      '/channels.yaml',
      '/demo/demo.js',
      '/gateway.ts',
      '/client/client.test.ts',
      '/..%2fpackage.json',
    ]) {
      expect((await get(on, path))[0]).toBe(404);
    }
  });

  it('has everything that its modules import, as plain JavaScript', () => {
    const demo = new DemoPage();
    const seen = new Set<string>();
    const visit = (path: string) => {
      if (seen.has(path)) return;
      seen.add(path);
      const page = demo.page(path);
      expect(page, path).toBeDefined();
      const text = page?.body.toString() ?? '';
      expect(text).not.toMatch(/\binterface \w+ \{|import type/);
      for (const [, imported = ''] of text.matchAll(/from '([^']+)'/g))
        visit(new URL(imported, `file://${path}`).pathname);
    };
    visit('/demo.js');
    expect(seen).toContain('/client/stream.ts');
    expect(seen).toContain('/protocol/names.ts');
  });

  it('loads nothing from elsewhere and runs nothing inline', () => {
    const page = new DemoPage().page('/');
    expect(page?.headers['content-security-policy']).toMatch(/default-src 'none'; script-src 'self';/);
    expect(String(page?.body)).not.toMatch(/<script>|<style|\sstyle=|\son\w+=|src="http|href="http/);
  });
});

describe.skipIf(whyNoBrowser !== '')(`in a browser${whyNoBrowser}`, () => {
  const started = Promise.all([startRedis(), whyNoBrowser === '' ? launchBrowser() : undefined]);
  let env: Record<string, string> = {};
  beforeAll(async () => {
    const [redis] = await started;
    env = { REDIS_URL: redis.url, DEMO: 'true', CHANNELS };
  });
  afterAll(async () => {
    const [redis, browser] = await started;
    await browser?.close();
    await redis.stop();
  });

  /** A tab of somebody, and everything that went wrong in it. */
  async function openTab(port: number, name: string, options: BrowserContextOptions = {}) {
    const [, browser] = await started;
    const context = await browser?.newContext(options);
    const page = await context?.newPage();
    if (page === undefined) throw new Error('there is no browser');
    onTestFinished(() => page.context().close());
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('console', (message) => {
      // That a line is cut is what is tested here; Chromium complains of it all the same.
      const isNetwork = message.text().startsWith('WebSocket connection to');
      if (message.type() === 'error' && !isNetwork) faults.push(message.text());
    });
    await page.goto(`http://127.0.0.1:${port}/?name=${name}`);
    await page.waitForSelector('#status[data-state=open]');
    return { page, faults };
  }

  const texts = (page: Page, selector: string) => page.locator(selector).allTextContents();
  const messages = (page: Page) => texts(page, '#messages .text');
  const events = async (page: Page) => (await texts(page, '#events li')).join('\n');

  async function say(page: Page, text: string) {
    await page.fill('#text', text);
    await page.press('#text', 'Enter');
  }

  /** How many pixels of the board are drawn on. */
  const inked = (page: Page) =>
    page.evaluate(`(() => {
      const canvas = document.getElementById('canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, at) => at % 4 === 3 && value > 0).length;
    })()`) as Promise<number>;

  async function twoGateways(settings: Record<string, string> = {}) {
    const [one, two] = await Promise.all([startGateway({ ...env, ...settings }), startGateway(env)]);
    const balancer = await startBalancer(one.ports.ws);
    onTestFinished(async () => {
      await Promise.all([one.stop('SIGKILL'), two.stop('SIGKILL'), balancer.stop()]);
    });
    return { one, two, balancer };
  }

  it('crosses gateways, and misses nothing it can know of when its gateway is killed', async () => {
    const { one, two, balancer } = await twoGateways();
    const ann = await openTab(balancer.port, 'ann');
    const bob = await openTab(two.ports.ws, 'bob');

    await say(ann.page, 'hello bob');
    await say(bob.page, 'hello ann');
    for (const { page } of [ann, bob]) {
      await until(async () => (await messages(page)).length === 2, { what: 'both messages in both tabs' });
      expect((await messages(page)).toSorted()).toEqual(['hello ann', 'hello bob']);
      await until(async () => (await texts(page, '#people li')).length === 2, { what: 'both to be listed' });
    }
    await ann.page.click('#peers button[value=bob]');
    await ann.page.fill('#letter', 'between us');
    await ann.page.press('#letter', 'Enter');
    await until(async () => (await texts(bob.page, '#letters .text')).includes('between us'), {
      what: 'the letter',
    });
    // The keyboard can draw, and what is drawn crosses too.
    await ann.page.focus('#canvas');
    for (const key of [' ', 'ArrowRight', 'ArrowDown', 'ArrowRight', ' ']) await ann.page.keyboard.press(key);
    await until(() => inked(bob.page), { what: 'the stroke on the other board' });
    await until(async () => (await texts(bob.page, '#legend li')).length === 2, {
      what: 'both lines of the chart',
    });

    balancer.use();
    await one.stop('SIGKILL');
    await ann.page.waitForSelector('#status[data-state=reconnecting]');
    await say(ann.page, 'said without a line');
    await say(bob.page, 'said to nobody');
    await until(async () => (await messages(bob.page)).length === 3, {
      what: 'the message while ann was away',
    });
    balancer.use(two.ports.ws);
    await ann.page.waitForSelector('#status[data-state=open]');
    for (const { page } of [ann, bob]) {
      await until(async () => (await messages(page)).length === 4, { what: 'everything that was said' });
      expect((await messages(page)).slice(2)).toEqual(['said to nobody', 'said without a line']);
    }
    await until(async () => /Back, with all that was missed: .*chat:lobby/.test(await events(ann.page)), {
      what: 'the recovery to be told',
    });
    expect(await events(ann.page)).toMatch(/Messages may be missing \(reconnect\): .*dash:load/);
    expect(await texts(ann.page, '#messages .failed, #messages .pending')).toEqual([]);
    expect([...ann.faults, ...bob.faults]).toEqual([]);
  });

  it('moves off a gateway that is drained without losing its line', async () => {
    const { one, two, balancer } = await twoGateways({ DRAIN_SECONDS: '10' });
    const ann = await openTab(balancer.port, 'carl');
    const bob = await openTab(two.ports.ws, 'dora');
    await say(ann.page, 'before');
    balancer.use(two.ports.ws);
    expect(await one.stop()).toBe(0);
    await say(bob.page, 'after');
    await until(async () => (await messages(ann.page)).at(-1) === 'after', {
      what: 'the message after the move',
    });
    const told = await events(ann.page);
    expect(told).toMatch(/Moved to another gateway/);
    expect(told).not.toMatch(/missing|Not connected/);
    expect((await messages(bob.page)).filter((text) => text === 'before')).toHaveLength(1);
    expect([...ann.faults, ...bob.faults]).toEqual([]);
  });

  it('comes back when its socket is killed by hand, and under another name when it is asked to', async () => {
    const gateway = await startLocalGateway(env);
    onTestFinished(() => gateway.stop());
    const { page, faults } = await openTab(gateway.ports.ws, 'eve');
    await page.click('#kill');
    await until(async () => (await events(page)).includes('killed by hand (4000)'), {
      what: 'the close to be told',
    });
    await page.waitForSelector('#status[data-state=open]');
    await page.fill('#name', 'eva');
    await page.press('#name', 'Enter');
    await until(async () => (await events(page)).includes('Connected as eva'), { what: 'the new name' });
    expect(await texts(page, '#people li')).not.toContain('eve (you)');
    expect(faults).toEqual([]);
  });

  it.each([360, 800, 1280])('fits a window %i wide, and every control has a name', async (width) => {
    const gateway = await startLocalGateway(env);
    onTestFinished(() => gateway.stop());
    const { page, faults } = await openTab(gateway.ports.ws, 'fay', { viewport: { width, height: 800 } });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
    // All at one moment: people come and go, and their buttons with them.
    const snapshot = await page.locator('body').ariaSnapshot();
    const controls = snapshot
      .split('\n')
      .filter((line) => /^\s*- (button|textbox|img|application)\b/.test(line));
    expect(controls.length, snapshot).toBeGreaterThanOrEqual(await page.locator('canvas, input').count());
    for (const control of controls) expect(control).toMatch(/- \w+ "[^"]+"/);
    expect(faults).toEqual([]);
  });
});
