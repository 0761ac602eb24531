// What of npm's packages is in the bundle (an SBOM, in CycloneDX), from the lockfile alone. Run by itself, it writes
// dist/image/sbom.cdx.json.

import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { npm } from './npm.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Where it is written to, from the root. */
export const sbomFile = 'dist/image/sbom.cdx.json';

/** Writes the SBOM. @throws where npm is too old to make one */
export function writeSbom(): void {
  const args = ['sbom', '--sbom-format', 'cyclonedx', '--sbom-type', 'application', '--package-lock-only'];
  args.push('--omit', 'dev', '--omit', 'optional');
  const { status, stdout } = npm(...args);
  if (status !== 0) throw new Error('`npm sbom` failed: it needs npm 10 or later');
  const sbom = JSON.parse(stdout);
  sbom.metadata.component.name = 'tidegate'; // npm takes the folder's name
  mkdirSync(`${root}/dist/image`, { recursive: true });
  writeFileSync(`${root}/${sbomFile}`, `${JSON.stringify(sbom, null, 2)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeSbom();
  console.log(`written: ${sbomFile}`);
}
