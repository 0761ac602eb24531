// Settings: what the suite is told by its environment, and what `main.ts` tells the scenarios by theirs.

const env = process.env;

/** What all namespaces of a run begin with, and are labelled with. */
export const runName = env.E2E_NAME || 'tidegate-e2e';

/** On every namespace of a run: what a killed run has left behind is found by it. */
export const runLabel = 'tidegate-e2e-run';

/** The command that brings an image into the cluster. */
export const loadCommand = env.E2E_LOAD?.trim().split(/\s+/);

/** An image that the cluster can pull by itself. */
export const givenImage = env.E2E_IMAGE || undefined;

/** The image under test. */
export const image = givenImage ?? `localhost/tidegate:${runName}`;

/** Where failed scenarios leave what was seen of them. */
export const artifacts = new URL('artifacts/', import.meta.url);

/** The port on this machine that leads to the relay. Only there while `main.ts` runs the scenarios. */
export function relayPort(): number {
  const port = Number(env.E2E_RELAY_PORT);
  if (!port) throw new Error('Scenarios are run by `npm run e2e`, which opens the way into the cluster.');
  return port;
}

/** A line of progress. */
export function say(what: string, text: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${what}: ${text}\n`);
}
