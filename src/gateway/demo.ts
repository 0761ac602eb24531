// The demo page: files of demo/ and the client's sources, served by the public listener where DEMO is on.

import { readdirSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { extname } from 'node:path';

/** A page as it is answered. */
export interface Page {
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

const ROOT = new URL('../../', import.meta.url);

/** The page imports this, and so, by its own imports, all of the client. */
const CLIENT = 'client/client.ts';

const SCRIPT = 'text/javascript; charset=utf-8';
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': SCRIPT,
  '.css': 'text/css; charset=utf-8',
};

/** Inline nothing, load nothing from elsewhere, talk to this host alone. */
const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
};

/** Reads the files once, at the start: no path of a request ever becomes the path of a file. The client is served as
 * it is written, less its types, so that the page needs no build. */
export class DemoPage {
  readonly #pages = new Map<string, Page>();

  constructor() {
    const folder = new URL('demo/', ROOT);
    for (const file of readdirSync(folder)) {
      const type = TYPES[extname(file)];
      if (type !== undefined)
        this.#add(file === 'index.html' ? '/' : `/${file}`, type, readFileSync(new URL(file, folder)));
    }
    this.#addModule(CLIENT);
  }

  page(path: string): Page | undefined {
    return this.#pages.get(path);
  }

  #add(path: string, type: string, body: Buffer): void {
    this.#pages.set(path, { headers: { ...HEADERS, 'content-type': type }, body });
  }

  /** Adds a module of src/ under the path it has there, and those it imports. */
  #addModule(path: string): void {
    if (this.#pages.has(`/${path}`)) return;
    const script = withoutTypes(readFileSync(new URL(`src/${path}`, ROOT), 'utf8'));
    this.#add(`/${path}`, SCRIPT, Buffer.from(script));
    for (const [, imported = ''] of script.matchAll(/from '(\.{1,2}\/[^']+)'/g)) {
      this.#addModule(new URL(imported, `file:///${path}`).pathname.slice(1));
    }
  }
}

/** Node runs the gateway's own sources in the same way; it only warns of doing it for others. */
function withoutTypes(source: string): string {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(source);
  } finally {
    process.emitWarning = emitWarning;
  }
}
