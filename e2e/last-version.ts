// The last version: what was released before this tree, as chart and image, to upgrade from.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run, runToEnd } from './programs.ts';
import { givenImage, loadCommand, runName, say } from './settings.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** A version in the repository's history. */
export interface Version {
  readonly commit: string;
  /** As it is called: a tag, or the commit. */
  readonly name: string;
}

/** The last version: the newest tag before this commit; and until there is one, the commit that made the chart one that
 * can be installed, with which its README came.
 * Undefined where the history is not here. */
export async function findLastVersion(): Promise<Version | undefined> {
  const git = async (...args: string[]) => (await runToEnd('git', args, { cwd: root })).stdout.trim();
  const tag = await git('describe', '--tags', '--abbrev=0', '--match=v*', 'HEAD^');
  if (tag !== '') return { commit: await git('rev-list', '-1', tag), name: tag };
  const added = await git('log', '--diff-filter=A', '--format=%H', '--', 'charts/tidegate/README.md');
  const commit = added.split('\n').at(-1) ?? '';
  const isWhole = (await git('rev-parse', '--is-shallow-repository')) === 'false';
  return commit === '' || !isWhole ? undefined : { commit, name: commit.slice(0, 10) };
}

/** A version that can be installed. */
export interface Installable {
  readonly chart: string;
  readonly image: string;
  /** Removes its files from this machine. */
  remove(): void;
}

/** Brings a version's image into the cluster, built from its own files. Where images come from elsewhere
 * (E2E_IMAGE), that of the last version does, too: E2E_LAST_IMAGE. */
export async function bring({ commit, name }: Version): Promise<Installable> {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-e2e-last-'));
  const archive = join(folder, 'files.tar');
  await run('git', ['archive', '--output', archive, commit], { cwd: root });
  await run('tar', ['--extract', '--file', archive, '--directory', folder]);
  const image = lastImage ?? `localhost/tidegate:${runName}-${commit.slice(0, 10)}`;
  const [program = '', ...args] = loadCommand ?? [];
  if (lastImage === undefined) {
    say('upgrade', `building the image of ${name}`);
    await run(process.execPath, ['scripts/image.ts'], { cwd: folder, env: { IMAGE: image } });
    await run(program, [...args, image], { cwd: root });
  }
  return {
    chart: join(folder, 'charts/tidegate'),
    image,
    remove: () => rmSync(folder, { recursive: true }),
  };
}

/** The image of the last version, where it is not built. */
export const lastImage = process.env.E2E_LAST_IMAGE || undefined;

/** Why there can be no upgrade from the last version here; undefined where there can. */
export function whyNot(version: Version | undefined): string | undefined {
  if (version === undefined) return "the repository's history is not here";
  if (givenImage !== undefined && lastImage === undefined)
    return 'E2E_IMAGE is set, and E2E_LAST_IMAGE is not';
  return undefined;
}
