// Third parties: which packages a release contains under which licences (THIRD-PARTY.md), and where every package that
// is ever installed comes from. With --check it changes nothing and fails where something is not as it should be.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const file = 'THIRD-PARTY.md';
const registry = 'https://registry.npmjs.org/';

/** Licences under which a package may be in the image: none of them asks more than to be named. */
const allowedLicences = [
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'ISC',
  'MIT',
  'PSF-2.0',
  'Unlicense',
];

/** Packages that may run a program of their own when they are installed, and why. npm runs any such program. */
const allowedScripts: Readonly<Record<string, string>> = {
  esbuild: 'checks that the binary for this machine is there',
  fsevents: 'builds itself, on macOS alone',
};

interface Locked {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly license?: string;
  readonly link?: boolean;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
  readonly hasInstallScript?: boolean;
}

const lock = JSON.parse(readFileSync(`${root}/package-lock.json`, 'utf8')) as {
  lockfileVersion: number;
  packages: Readonly<Record<string, Locked>>;
};
const packages = Object.entries(lock.packages)
  .filter(([path]) => path !== '')
  .map(([path, locked]) => ({ name: path.slice(path.lastIndexOf('node_modules/') + 13), ...locked }));
const runtime = packages.filter((it) => !it.dev && !it.optional && !it.devOptional);

/** What is wrong with a package: nothing but the public registry by name, each byte of it known in advance. */
function faultsOf(it: (typeof packages)[number]): string[] {
  const faults: string[] = [];
  if (it.link) faults.push('is a link to a folder');
  // Without an address it is what the registry has under this name and version.
  if (it.resolved !== undefined && !it.resolved.startsWith(registry))
    faults.push(`comes from ${it.resolved}`);
  if (!/^\d+\.\d+\.\d+/.test(it.version ?? '')) faults.push(`has the version "${it.version}"`);
  if (!/^sha512-[A-Za-z0-9+/]{86}==$/.test(it.integrity ?? '')) faults.push('has no sha512 of its content');
  if (it.hasInstallScript && !(it.name in allowedScripts)) faults.push('runs a program when it is installed');
  if (runtime.includes(it) && !isAllowed(it.license)) faults.push(`has the licence "${it.license}"`);
  return faults.map((fault) => `${it.name} ${fault}`);
}

/** Of licences to choose from, one is enough. */
function isAllowed(licence = ''): boolean {
  return licence
    .replace(/[()]/g, '')
    .split(' OR ')
    .some((one) => allowedLicences.includes(one));
}

function render(): string {
  const rows = [...new Set(runtime.map((it) => `| \`${it.name}\` | ${it.version} | ${it.license} |`))].sort();
  return `# Third parties

What \`npm ci --omit dev --omit optional\` installs, and what the bundle in the image is made from: ${rows.length} packages, with their
licences. Beside them the image has Node.js (MIT, with the licences of its own parts) and Debian's base. \`npm run docs\`
writes this page from the lockfile.

| Package | Version | Licence |
| --- | --- | --- |
${rows.join('\n')}
`;
}

const faults = packages.flatMap(faultsOf);
if (lock.lockfileVersion < 3)
  faults.push(`package-lock.json is of version ${lock.lockfileVersion}: use npm 10 or later`);
if (packages.length === 0) faults.push('package-lock.json names no packages');
const text = render();
if (process.argv.includes('--check')) {
  if (readFileSync(`${root}/${file}`, 'utf8') !== text)
    faults.push(`${file} is not up to date: run \`npm run docs\``);
} else writeFileSync(`${root}/${file}`, text);
for (const fault of faults) console.error(fault);
if (faults.length > 0) process.exitCode = 1;
else console.log(`${packages.length} packages, all from the registry; ${runtime.length} in a release`);
