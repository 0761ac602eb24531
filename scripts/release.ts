// What the release workflow needs of the tree:
//   npm run release -- check v1.2.3                    everything says this version, and the changelog has its notes
//   npm run release -- chart REPOSITORY sha256:…       the chart, with the image that was built written into it
// It writes dist/release/notes.md, and dist/release/tidegate-1.2.3.tgz.

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, parseDocument } from 'yaml';

const root = fileURLToPath(new URL('..', import.meta.url));
const chart = join(root, 'charts/tidegate');
const out = join(root, 'dist/release');

/** A fault that the person at the keyboard can mend: printed without a stack. */
class Fault extends Error {}

/** @throws where the tree is not what is to be released as this tag */
function check(tag = ''): void {
  const version = /^v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)$/.exec(tag)?.[1];
  if (version === undefined)
    throw new Fault(`the tag is "${tag}", and has to be one as v1.2.3 or v1.2.3-rc.1`);
  const { version: ofPackage } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { version: ofChart, appVersion } = parse(readFileSync(join(chart, 'Chart.yaml'), 'utf8'));
  const found = {
    'package.json: version': ofPackage,
    'Chart.yaml: version': ofChart,
    'Chart.yaml: appVersion': appVersion,
  };
  const wrong = Object.entries(found).filter(([, it]) => it !== version);
  const notes = notesOf(version);
  const faults = wrong.map(([where, it]) => `${where} is ${it}`);
  if (notes === undefined) faults.push(`CHANGELOG.md has nothing under "## [${version}]"`);
  if (notes === undefined || faults.length > 0) {
    throw new Fault(
      `this tree cannot be released as ${tag}:\n- ${faults.join('\n- ')}\ndocs/releasing.md says how.`,
    );
  }
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, 'notes.md'), notes);
}

/** What the changelog says of a version. */
function notesOf(version: string): string | undefined {
  const [, ...sections] = readFileSync(join(root, 'CHANGELOG.md'), 'utf8').split(/^## /m);
  const section = sections.find((it) => it.startsWith(`[${version}]`));
  const notes = section?.slice(section.indexOf('\n')).trim();
  return notes ? `${notes}\n` : undefined;
}

/** Packages the chart so that it runs just this image. @throws where what is packaged would run another */
function packageChart(repository = '', digest = ''): void {
  if (!/^[a-z0-9.-]+(:\d+)?(\/[a-z0-9._-]+)+$/.test(repository) || !/^sha256:[0-9a-f]{64}$/.test(digest)) {
    throw new Fault('usage: npm run release -- chart REPOSITORY sha256:DIGEST');
  }
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-release-'));
  try {
    const copy = join(folder, 'tidegate');
    cpSync(chart, copy, { recursive: true });
    const file = join(copy, 'values.yaml');
    const values = parseDocument(readFileSync(file, 'utf8'));
    values.setIn(['image', 'repository'], repository);
    values.setIn(['image', 'digest'], digest);
    writeFileSync(file, values.toString({ lineWidth: 0, flowCollectionPadding: false }));
    mkdirSync(out, { recursive: true });
    helm('package', copy, '--destination', out);
    const { version } = parse(readFileSync(join(chart, 'Chart.yaml'), 'utf8'));
    const archive = join(out, `tidegate-${version}.tgz`);
    const rendered = helm('template', 'tidegate', archive, '--kube-version', '1.35.0');
    const images = [...rendered.matchAll(/^\s+image: "?(\S+?)"?$/gm)].map(([, image = '']) => image);
    const ours = images.filter((image) => image.startsWith(repository));
    if (ours.length === 0 || ours.some((image) => image !== `${repository}@${digest}`)) {
      throw new Error(`the packaged chart runs ${images.join(', ')}`);
    }
    console.log(archive);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function helm(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('helm', args, { encoding: 'utf8', maxBuffer: 64 * 1_048_576 });
  if (status !== 0) throw new Fault(`helm ${args.join(' ')} failed:\n${stdout ?? ''}${stderr ?? ''}`);
  return stdout;
}

const [command, ...args] = process.argv.slice(2);
try {
  if (command === 'check') check(...args);
  else if (command === 'chart') packageChart(...args);
  else throw new Fault('usage: npm run release -- check TAG | chart REPOSITORY sha256:DIGEST');
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
