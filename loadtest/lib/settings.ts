// Settings: what a script is told by `-e NAME=value`, the same for all of them. loadtest/README.md has the table.

/** What k6 hands over of `-e` and of the environment. */
declare const __ENV: Readonly<Record<string, string | undefined>>;

const text = (name: string): string | undefined => __ENV[name] || undefined;

/** `ci` is the small form of every script: seconds instead of minutes, tens of connections instead of thousands. */
export const size: 'ci' | 'full' = text('SIZE') === 'ci' ? 'ci' : 'full';

/** A number that may be set by `-e NAME=`, with its default for each size.
 * @throws where what is set is no number, which ends the run before it began. */
export function number(name: string, defaults: { readonly ci: number; readonly full: number }): number {
  const given = text(name);
  const value = given === undefined ? defaults[size] : Number(given);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a number, not ${given}`);
  return value;
}

/** Where the gateway is, with its path; `npm start` listens at the default. */
export const url = withPath(text('URL') ?? 'ws://127.0.0.1:8080');

/** The HTTP API, without the last slash; used where a key is given. */
export const apiUrl = (text('API_URL') ?? 'http://127.0.0.1:8081').replace(/\/+$/, '');
export const apiKey = text('API_KEY');

/** Signs a token for every connection; unset where the gateway lets everybody in. */
export const jwtSecret = text('JWT_SECRET');

/** Admin listeners of the pods, for scripts that look at memory or skew. */
export const adminUrls = (text('ADMIN_URLS') ?? '')
  .split(',')
  .map((item) => item.trim().replace(/\/+$/, ''))
  .filter((item) => item !== '');

/** The token of the admin listeners, where they want one. */
export const adminToken = text('ADMIN_TOKEN');

/** Namespaces of the channels that are used; the defaults are those of the demo, which `npm start` has. */
export const namespaces = {
  ephemeral: text('NAMESPACE') ?? 'dash',
  durable: text('DURABLE_NAMESPACE') ?? 'chat',
};

/** Tells runs apart that use the same gateway at the same time, and is common to the runners of one run. */
export const run = text('RUN') ?? 'load';

/** Tells the runners of one run apart: each has a clock of its own. In a pod, HOSTNAME is the pod's name. */
export const runner = text('RUNNER') ?? text('HOSTNAME') ?? 'local';

/** The folder that the summaries are written to. */
export const out = (text('OUT') ?? '.').replace(/\/+$/, '');

function withPath(given: string): string {
  const bare = given.replace(/^http/, 'ws').replace(/\/+$/, '');
  return /^wss?:\/\/[^/]+$/.test(bare) ? `${bare}/ws` : bare;
}
