// A space: the namespace that a scenario has to itself, and what is kept of it when the scenario fails.

import { mkdirSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { core } from './cluster.ts';
import { apply, kubectl, runToEnd } from './programs.ts';
import { artifacts, runLabel, runName, say } from './settings.ts';

/** A scenario's namespace. */
export interface Space {
  readonly name: string;
  readonly namespace: string;
  /** A line of progress. */
  say(text: string): void;
}

/** Gives the tests of this file a namespace: prepared before them, deleted after them, described if one fails. */
export function useSpace(name: string, prepare: (space: Space) => Promise<void>): Space {
  const namespace = `${runName}-${name}`;
  const space: Space = { name, namespace, say: (text) => say(name, text) };
  beforeAll(async () => {
    await apply({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name: namespace,
        labels: { [runLabel]: runName, 'pod-security.kubernetes.io/enforce': 'restricted' },
      },
    });
    try {
      await prepare(space);
    } catch (error) {
      await describe(space);
      throw error;
    }
  });
  beforeEach(({ task, onTestFailed }) => {
    space.say(task.name);
    onTestFailed(() => describe(space));
  });
  afterAll(async () => {
    await kubectl('delete', 'namespace', namespace, '--wait=false', '--ignore-not-found');
  });
  return space;
}

/** Writes down what there is to see of a scenario that failed. */
async function describe({ name, namespace, say }: Space): Promise<void> {
  const folder = new URL(`${name}/`, artifacts);
  mkdirSync(folder, { recursive: true });
  const keep = async (file: string, ...args: string[]) => {
    const { output } = await runToEnd('kubectl', ['--namespace', namespace, ...args]);
    writeFileSync(new URL(file, folder), output);
  };
  await keep('objects.txt', 'get', 'all,configmap,pvc,pdb,hpa,endpointslice', '--output', 'wide');
  await keep('events.txt', 'get', 'events', '--sort-by=.lastTimestamp');
  await keep('descriptions.txt', 'describe', 'pod,deployment,statefulset,hpa,pdb,pvc');
  await keep('policies.yaml', 'get', 'connectionpolicy', '--output', 'yaml');
  const { items } = await core.listNamespacedPod({ namespace });
  for (const { metadata } of items) {
    const pod = metadata?.name ?? '';
    await keep(`${pod}.log`, 'logs', pod, '--all-containers', '--timestamps');
    await keep(`${pod}.previous.log`, 'logs', pod, '--all-containers', '--timestamps', '--previous');
  }
  say(`failed: what was seen is in e2e/artifacts/${name}`);
  // Where only the log is kept, it says what matters most.
  for (const { metadata, status } of items) {
    for (const { restartCount, lastState } of status?.containerStatuses ?? []) {
      if (restartCount > 0) say(`${metadata?.name} restarted: ${JSON.stringify(lastState?.terminated)}`);
    }
  }
  const { items: events } = await core.listNamespacedEvent({ namespace, fieldSelector: 'type=Warning' });
  for (const { count, involvedObject, message, reason } of events.slice(-20)) {
    say(`${count ?? 1} × ${reason} of ${involvedObject.name}: ${message}`);
  }
}
