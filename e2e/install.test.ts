// The first minutes with the chart: no values, and what the notes say, word for word.

import { spawn } from 'node:child_process';
import { beforeAll, describe, expect, test } from 'vitest';
import { TestClient } from '../test/websocket.ts';
import { eventually } from './cluster.ts';
import { contents, expectContents, testLife } from './life.ts';
import { run } from './programs.ts';
import { imageValues, Release } from './release.ts';
import { useSpace } from './space.ts';

let release: Release;
let before: readonly string[];

useSpace('install', async (space) => {
  before = await contents(space.namespace);
  release = await Release.install(space, { values: imageValues });
  await release.pods(2);
});

describe('what the notes say is true', () => {
  /** The ports on this machine that stand for those of the notes, which may be in use. */
  const ports = new Map<string, string>();

  test('the command that waits for it returns', async () => {
    const [command = ''] = /kubectl .* rollout status \S+/.exec(release.notes) ?? [];
    await run('bash', ['-euc', command]);
  });

  describe('connected from this machine', () => {
    beforeAll(async () => {
      const [command = ''] = /kubectl .* port-forward .*/.exec(release.notes) ?? [];
      const [program = '', ...args] = command.replaceAll(/ \d+:/g, ' :').split(' ');
      const forward = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      let output = '';
      forward.stdout.on('data', (chunk) => {
        output += chunk;
      });
      await eventually('both ports to be forwarded', 60, () => {
        for (const [, local = '', remote = ''] of output.matchAll(/127\.0\.0\.1:(\d+) -> (\d+)/g)) {
          ports.set(remote, local);
        }
        return ports.size === 2;
      });
      return () => forward.kill();
    });

    /** Runs commands of the notes, on the ports that there are. */
    const bash = (commands: string) =>
      run('bash', ['-euc', commands.replaceAll(/localhost:(\d+)/g, (_, it) => `localhost:${ports.get(it)}`)]);

    test('the token that they make connects, and hears what they publish from a backend', async () => {
      const printed = await bash(/ {2}SECRET=[\s\S]*?echo .*/.exec(release.notes)?.[0] ?? '');
      const [, url = ''] = /new WebSocket\('([^']+)'\)/.exec(printed) ?? [];
      const client = await TestClient.open(url);
      await bash(/ {2}KEY=[\s\S]*?\n {4}-d .*/.exec(release.notes)?.[0] ?? '');
      expect(JSON.parse(await client.text())).toEqual({ sender: 'backend', text: 'hello' });
      await client.leave();
    });
  });

  test('there is nothing to warn of', () => {
    expect(release.notes).not.toContain('WARNING');
  });
});

describe('the release', () => {
  testLife(() => ({ release, before }));
});

test('the commands that the notes have for what is left delete it all', async () => {
  await release.helm(['uninstall', release.name, '--ignore-not-found', '--wait']);
  const [, commands = ''] = /AN UNINSTALL .*:\n\n((?: {2}.*\n?)+)/.exec(release.notes) ?? [];
  await run('bash', ['-euc', commands.replaceAll(/ {4}.*/g, '')]);
  await expectContents(release, before);
});
