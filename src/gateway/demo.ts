// The demo page: files of demo/, served by the public listener where DEMO is on.

import { readFileSync } from 'node:fs';

/** A page as it is answered. */
export interface Page {
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

const FOLDER = new URL('../../demo/', import.meta.url);

/** Files by the path they are served at. A list, so that no path can name a file outside of it. */
const FILES: Readonly<Record<string, { file: string; type: string }>> = {
  '/': { file: 'index.html', type: 'text/html; charset=utf-8' },
  '/demo.js': { file: 'demo.js', type: 'text/javascript; charset=utf-8' },
  '/demo.css': { file: 'demo.css', type: 'text/css; charset=utf-8' },
};

/** Inline nothing, load nothing from elsewhere, talk to this host alone. */
const HEADERS = {
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
};

/** Reads the files once, at the start. */
export class DemoPage {
  readonly #pages = new Map<string, Page>();

  constructor() {
    for (const [path, { file, type }] of Object.entries(FILES)) {
      this.#pages.set(path, { headers: { ...HEADERS, 'content-type': type }, body: readFileSync(new URL(file, FOLDER)) });
    }
  }

  page(path: string): Page | undefined {
    return this.#pages.get(path);
  }
}
