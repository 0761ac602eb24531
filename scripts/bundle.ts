// The bundle that the image runs: src/gateway.ts and what it imports, in a few files in dist/.

import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const outdir = join(root, 'dist');

// Chunks are named by their content, so what an earlier build left would stay in the image for ever.
rmSync(outdir, { recursive: true, force: true });

const { metafile, warnings } = await build({
  absWorkingDir: root,
  entryPoints: { gateway: 'src/gateway.ts' },
  outdir,
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  // What is imported on demand (the API, Redis, YAML, tokens) stays a file of its own: a start loads what it uses.
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node26',
  minifySyntax: true,
  // Names and lines stay, so that a stack trace can be read without a map; compressed they cost next to nothing.
  minifyIdentifiers: false,
  minifyWhitespace: false,
  legalComments: 'linked',
  metafile: true,
  // Packages in CommonJS call `require` for Node's own modules, which ES modules lack.
  banner: {
    js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);",
  },
  // Native additions to `ws` that the project does not install: otherwise each start would look for them.
  // What an `import()` gets of a package in CommonJS has no names when it is split off, so YAML's other build is taken.
  alias: { yaml: './node_modules/yaml/browser/index.js' },
  define: { 'process.env.WS_NO_BUFFER_UTIL': '"true"', 'process.env.WS_NO_UTF_8_VALIDATE': '"true"' },
  logLevel: 'warning',
});
if (warnings.length > 0) process.exitCode = 1;

const bytes = Object.values(metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
console.log(`dist/: ${Object.keys(metafile.outputs).length} files, ${(bytes / 1_048_576).toFixed(1)} MiB`);
