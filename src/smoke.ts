// Tries a running gateway from outside, as `helm test` does: connects, sends, receives, resumes. It takes settings by
// the names that the gateway has for them, and disturbs nobody: what it sends goes to a user whom it makes up.

import { createHmac, type KeyObject, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { SharedSecrets } from './gateway/shared-secrets.ts';
import { valueIn } from './platform/config.ts';

/** How long anything may take. Longer than it takes to make a subscription on the bus anew. */
const TIMEOUT_MS = 10_000;

const TOKEN_SECONDS = 120;

type Frame = Readonly<Record<string, unknown>>;

/** Something did not happen as it should have. The message says what. */
class Failure extends Error {}

/** Reads a setting, or the file that its `_FILE` twin names. */
function setting(name: string): string | undefined {
  const file = process.env[`${name}_FILE`];
  return file ? valueIn(readFileSync(file, 'utf8')) : process.env[name] || undefined;
}

function required(name: string): string {
  const value = setting(name);
  if (value === undefined) throw new Failure(`${name} is not set`);
  return value;
}

/** A connection that keeps what arrives until it is asked for. */
class Connection {
  readonly #socket: WebSocket;
  readonly #frames: Frame[] = [];
  #closed: string | undefined;
  #wake: () => void = () => {};
  #ref = 0;

  constructor(url: string, token: string | undefined) {
    this.#socket = new WebSocket(url, ['tidegate.v1', ...(token === undefined ? [] : [`bearer.${token}`])]);
    this.#socket.onmessage = ({ data }) => {
      this.#frames.push(JSON.parse(String(data)) as Frame);
      this.#wake();
    };
    this.#socket.onclose = ({ code, reason }) => {
      this.#closed = `${code}${reason && ` (${reason})`}`;
      this.#wake();
    };
    this.#socket.onerror = () => {};
  }

  /** The first frame that is as wanted; those before it are dropped. */
  async next(what: string, isWanted: (frame: Frame) => boolean): Promise<Frame> {
    const deadline = performance.now() + TIMEOUT_MS;
    for (;;) {
      for (let frame = this.#frames.shift(); frame !== undefined; frame = this.#frames.shift()) {
        if (isWanted(frame)) return frame;
      }
      if (this.#closed !== undefined)
        throw new Failure(`the connection was closed with ${this.#closed} instead of ${what}`);
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Failure(`no ${what} within ${TIMEOUT_MS / 1000} s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Sends a command and returns its answer. */
  async call(command: Frame): Promise<Frame> {
    const ref = ++this.#ref;
    this.#socket.send(JSON.stringify({ ...command, ref }));
    return this.next(`an answer to "${command.type}"`, (frame) => frame.ref === ref);
  }

  close(): void {
    this.#socket.close();
  }
}

/** The token that an application's backend would make for this user. */
function tokenFor(user: string, channel: string | undefined, secret: KeyObject): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const algorithm =
    setting('JWT_ALGORITHMS')
      ?.split(',')
      .map((it) => it.trim())
      .find((it) => it.startsWith('HS')) ?? 'HS256';
  const claims = {
    sub: user,
    exp: Math.floor(Date.now() / 1000) + TOKEN_SECONDS,
    aud: setting('JWT_AUDIENCE'),
    iss: setting('JWT_ISSUER'),
    send: [user],
    channels: { subscribe: channel === undefined ? [] : [channel] },
  };
  const text = `${part({ alg: algorithm, typ: 'JWT' })}.${part(claims)}`;
  return `${text}.${createHmac(`sha${algorithm.slice(2)}`, secret)
    .update(text)
    .digest('base64url')}`;
}

/** Calls the HTTP API with the first of the keys. */
async function post(path: string, body: unknown): Promise<Frame> {
  const key = required('API_KEYS')
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line !== '' && !line.startsWith('#'));
  const response = await fetch(`${required('API_URL')}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok)
    throw new Failure(`the HTTP API answered ${response.status} to ${path}: ${await response.text()}`);
  return (await response.json()) as Frame;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function main(): Promise<void> {
  const url = required('URL');
  const id = randomBytes(9).toString('base64url');
  const user = `helm-test-${id}`;
  const namespace = setting('DURABLE_NAMESPACE');
  const channel = namespace === undefined ? undefined : `${namespace}:helm-test-${id}`;
  const secrets = setting('JWT_SECRET');
  const [secret] = secrets === undefined ? [] : new SharedSecrets(secrets).keys;
  const hasApi = setting('API_URL') !== undefined;
  const token = secret === undefined ? undefined : tokenFor(user, channel, secret);
  const connect = () =>
    new Connection(setting('AUTH') === 'anonymous' ? `${url}/ws/${user}` : `${url}/ws`, token);
  const isData = (data: string) => (frame: Frame) => frame.type === 'message' && frame.data === data;

  if (setting('AUTH') !== 'anonymous' && token === undefined) {
    // Tokens are signed by somebody else's keys, so what can be seen is that nobody gets in without one.
    const refusal = await connect()
      .next('a welcome', () => true)
      .catch((error: Error) => error);
    if (!(refusal instanceof Failure && refusal.message.includes('closed with 1008'))) {
      throw new Failure(`a connection without a token was not refused: ${JSON.stringify(refusal)}`);
    }
    say('ok       connects, and is refused without a token');
    if (hasApi) await post(`/v1/users/${user}/messages`, { data: 'hello' });
    return say(
      `${hasApi ? 'ok     ' : 'skipped'}  publishes through the HTTP API\nskipped  receives, resumes: there is no secret to sign a token with`,
    );
  }

  const connection = connect();
  await connection.next('a welcome', (frame) => frame.type === 'welcome');
  say('ok       connects');

  const sent = await connection.call({ type: 'send', user, data: 'from a client' });
  if (sent.type === 'ok') await connection.next('the message from a client', isData('from a client'));
  else if (sent.code !== 'forbidden') throw new Failure(`"send" was answered with ${JSON.stringify(sent)}`);
  say(
    sent.type === 'ok'
      ? 'ok       sends and receives'
      : 'skipped  sends: the channels file does not let clients',
  );

  if (!hasApi) return say('skipped  publishes, resumes: the HTTP API is off');
  await post(`/v1/users/${user}/messages`, { data: 'from the API' });
  await connection.next('the message from the API', isData('from the API'));
  say('ok       receives what the HTTP API publishes');

  if (channel === undefined)
    return say('skipped  resumes: there is no durable namespace that a token may subscribe to');
  const subscribed = await connection.call({ type: 'subscribe', channel });
  if (subscribed.type !== 'ok')
    throw new Failure(`"subscribe" was answered with ${JSON.stringify(subscribed)}`);
  await post('/v1/publish', { channel, data: 'before' });
  const { position } = await connection.next('the message on a durable channel', isData('before'));
  connection.close();
  await post('/v1/publish', { channel, data: 'while away' });
  const second = connect();
  await second.next('a welcome', (frame) => frame.type === 'welcome');
  const resumed = await second.call({ type: 'subscribe', channel, after: position });
  if (resumed.recovered !== true) throw new Failure(`resuming was answered with ${JSON.stringify(resumed)}`);
  await second.next('the message that was missed', isData('while away'));
  second.close();
  say('ok       resumes a durable channel where it left it');
}

try {
  await main();
} catch (error) {
  say(`FAILED   ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
// Sockets that are still closing must not keep a test that is over.
process.exit();
