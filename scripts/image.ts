// Builds the image with docker or buildah, whichever is there, as localhost/tidegate:dev or $IMAGE, and the list of
// what is in its bundle (an SBOM) beside it. Arguments go on to the builder: `npm run image -- --platform linux/arm64`.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { sbomFile, writeSbom } from './sbom.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const image = process.env.IMAGE || 'localhost/tidegate:dev';

/** Standard output, or undefined where the program is missing or fails. */
function outputOf(program: string, ...args: string[]): string | undefined {
  const { status, stdout } = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1_048_576,
  });
  return status === 0 ? stdout.trim() : undefined;
}

/** How to build. A docker that has no daemon to talk to is as good as none. */
function builder(): { program: string; args: string[] } | undefined {
  if (outputOf('docker', 'version', '--format', '{{.Server.Version}}'))
    return { program: 'docker', args: ['build'] };
  // Without a network of its own and without namespaces, so that it also works inside a container.
  const args = ['build', '--isolation', 'chroot', '--network', 'host', '--layers'];
  return outputOf('buildah', '--version') === undefined ? undefined : { program: 'buildah', args };
}

/** What the labels say: the version, the commit (with a mark where the tree differs from it) and the commit's time,
 * so that the same commit gives the same image. */
function buildArgs(): string[] {
  const { version } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string };
  const commit = outputOf('git', 'rev-parse', 'HEAD') ?? 'unknown';
  const created = outputOf('git', 'log', '-1', '--format=%cI') ?? new Date().toISOString();
  const isDirty = outputOf('git', 'status', '--porcelain') !== '';
  const values = { VERSION: version, REVISION: `${commit}${isDirty ? '-dirty' : ''}`, CREATED: created };
  return Object.entries(values).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`]);
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}

const found =
  builder() ?? fail('An image needs docker (with its daemon running) or buildah, and neither is here.');
const args = [...found.args, '--tag', image, ...buildArgs(), ...process.argv.slice(2), '.'];
const { status } = spawnSync(found.program, args, { cwd: root, stdio: 'inherit' });
if (status !== 0) fail(`${found.program} could not build ${image}; its message is above`);

writeSbom();
console.log(`${image}, with its packages in ${sbomFile}`);
