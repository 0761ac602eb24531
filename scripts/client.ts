// The client as a page or another program loads it: a file in dist/client/ for each entry, and its types. `bundleClient` is what the
// tests measure, `bundleForK6` what the load tests use.

import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const entry = 'src/client/client.ts';
export const tracingEntry = 'src/client/tracing.ts';

/** Bundles the client, or another of its entries, into one minified ES module, for browsers and Node, and returns its
 * text. */
export async function bundleClient(from = entry): Promise<string> {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [from],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    lineLimit: 300, // an exception that nobody catches prints the whole line
    write: false,
    outdir: 'dist/client',
    logLevel: 'warning',
  });
  return outputFiles[0]?.text ?? '';
}

/** Bundles the client for the load tests: k6's engine fails at private fields, which esbuild rewrites for es2021. */
export async function bundleForK6(): Promise<string> {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    format: 'esm',
    target: 'es2021',
    banner: { js: '// Made from src/client by scripts/client.ts: run `npm run docs`.' },
    write: false,
    outdir: 'loadtest/lib',
    logLevel: 'warning',
  });
  return outputFiles[0]?.text ?? '';
}

/** Writes the client's declarations into a folder. They are a tree like that of src/. @throws what the compiler says. */
export function declareClient(outDir: string): void {
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const options = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', outDir];
  const project = [
    '--ignoreConfig',
    entry,
    tracingEntry,
    '--target',
    'esnext',
    '--module',
    'nodenext',
    '--types',
    'node',
    '--strict',
  ];
  const imports = ['--allowImportingTsExtensions', '--exactOptionalPropertyTypes', '--skipLibCheck'];
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...project, ...imports, ...options], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stdout);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const outdir = join(root, 'dist/client');
  rmSync(outdir, { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  for (const [name, from] of [
    ['client.js', entry],
    ['tracing.js', tracingEntry],
  ] as const) {
    const text = await bundleClient(from);
    writeFileSync(join(outdir, name), text);
    console.log(`dist/client/${name}: ${text.length} bytes, ${gzipSync(text).length} gzipped`);
  }
  declareClient(join(outdir, 'types'));
}
