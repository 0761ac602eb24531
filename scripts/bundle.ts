// The bundle that the image runs: the programs of src/ and what they import, in a few files in dist/.

import { globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const entryPoints = { gateway: 'src/gateway.ts', operator: 'src/operator.ts', smoke: 'src/smoke.ts' };
const chunks = 'chunks';

/** Writes the bundle into a folder, and returns how many files and bytes it has. Chunks are two levels below the folder
 * that has demo/, as src/gateway/ is, because the demo page is read from there. */
export async function bundle(outdir: string): Promise<{ files: number; bytes: number }> {
  // Chunks are named by their content, so what an earlier build left would stay for ever.
  rmSync(join(outdir, chunks), { recursive: true, force: true });
  const { metafile, warnings } = await build({
    absWorkingDir: root,
    entryPoints,
    outdir,
    chunkNames: `${chunks}/[name]-[hash]`,
    bundle: true,
    // What is imported on demand (the API, Redis, YAML, tokens) stays a file of its own: a start loads what it uses.
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    // Names and lines stay, so that a stack trace can be read without a map; compressed, they cost next to nothing.
    minifySyntax: true,
    legalComments: 'none', // the licences are whole in licenses.txt
    metafile: true,
    // Packages in CommonJS call `require` for Node's own modules, which ES modules lack.
    banner: {
      js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);",
    },
    // A package in CommonJS that is imported on demand loses its names (`default` is all that is left); YAML has a
    // build in ES modules as well, for browsers.
    alias: { yaml: './node_modules/yaml/browser/index.js' },
    // Native additions to `ws` that the project does not install: otherwise each start would look for them.
    define: { 'process.env.WS_NO_BUFFER_UTIL': '"true"', 'process.env.WS_NO_UTF_8_VALIDATE': '"true"' },
    logLevel: 'warning',
  });
  if (warnings.length > 0) throw new Error('esbuild warns: see above');
  // Or Node would read each file as CommonJS first, and again when that fails.
  writeFileSync(join(outdir, 'package.json'), '{"type":"module"}\n');
  writeFileSync(join(outdir, 'licenses.txt'), licenses(Object.keys(metafile.inputs)));
  const outputs = Object.values(metafile.outputs);
  return { files: outputs.length, bytes: outputs.reduce((sum, output) => sum + output.bytes, 0) };
}

/** The licences of the packages that are part of the bundle, which must come with copies of their code. */
function licenses(inputs: readonly string[]): string {
  const packages = inputs.flatMap((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? []);
  return [...new Set(packages)]
    .sort()
    .map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8'));
      const [file] = globSync(join(root, folder, '{LICENSE,LICENCE,license,License}*'));
      const text =
        file === undefined ? `Its package names the licence ${license}.` : readFileSync(file, 'utf8');
      return `${name} ${version}\n\n${text.trim()}\n`;
    })
    .join(`\n${'-'.repeat(80)}\n\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { files, bytes } = await bundle(join(root, 'dist'));
  console.log(`dist/: ${files} files, ${(bytes / 1_048_576).toFixed(1)} MiB`);
}
