// The load tests as one file each, in dist/loadtest/: what a ConfigMap takes, for runs inside a cluster.

import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const outdir = join(root, 'dist/loadtest');

rmSync(outdir, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: readdirSync(join(root, 'loadtest'))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `loadtest/${name}`),
  bundle: true,
  minifyWhitespace: true,
  format: 'esm',
  target: 'es2021',
  external: ['k6', 'k6/*'],
  outdir,
  logLevel: 'warning',
});
for (const name of readdirSync(outdir)) {
  console.log(`dist/loadtest/${name}: ${statSync(join(outdir, name)).size} bytes`);
}
