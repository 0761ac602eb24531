// A real browser for tests: the machine's own Chromium, driven by playwright-core, which brings none.

import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

/** Where Chromium is on this machine; undefined where there is none. CHROMIUM says where it is otherwise. */
const chromiumPath = [
  process.env.CHROMIUM,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
].find((path) => path !== undefined && existsSync(path));

/** For the name of a test that needs a browser: why it is skipped, or nothing. */
export const whyNoBrowser =
  chromiumPath === undefined ? ' (skipped: no Chromium here; apt-get install chromium)' : '';

/** Nothing of a browser that a test does not need: no sandbox for root, no GPU, no traffic of its own. */
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts a browser. @throws where there is none. */
export function launchBrowser(): Promise<Browser> {
  if (chromiumPath === undefined) throw new Error(`There is no browser${whyNoBrowser}.`);
  return chromium.launch({ executablePath: chromiumPath, args: FLAGS, timeout: 60_000 });
}
