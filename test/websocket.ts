// A WebSocket client for tests: keeps everything that arrives, in order, and waits for what a test expects.

import type { Agent } from 'node:http';
import { WebSocket } from 'ws';
import { until } from './until.ts';

export type Json = Record<string, unknown>;

export interface OpenOptions {
  readonly protocols?: string[];
  readonly headers?: Record<string, string>;
  /** Makes the connection, where it goes another way than straight to the host of the URL. */
  readonly agent?: Agent;
}

/** How a connection ended. */
export interface Ended {
  readonly code: number;
  readonly reason: string;
}

/** A connection under test. */
export class TestClient {
  readonly ws: WebSocket;
  /** Text frames that have arrived and were not taken yet. */
  readonly inbox: string[] = [];
  /** Set when the connection has ended. */
  ended: Ended | undefined;

  private constructor(ws: WebSocket) {
    this.ws = ws;
    ws.on('message', (data) => this.inbox.push(data.toString()));
    ws.on('close', (code, reason) => {
      this.ended = { code, reason: reason.toString() };
    });
    ws.on('error', () => {});
  }

  /** Connects and resolves when the connection is open. @throws with the status where the upgrade is refused. */
  static async open(url: string, { protocols = [], ...options }: OpenOptions = {}): Promise<TestClient> {
    const ws = new WebSocket(url, protocols, options);
    const client = new TestClient(ws);
    await new Promise<void>((resolve, reject) => {
      ws.once('open', () => resolve());
      ws.once('unexpected-response', (_request, response) => {
        reject(
          Object.assign(new Error(`status ${response.statusCode}`), {
            status: response.statusCode,
            headers: response.headers,
          }),
        );
        response.resume();
      });
      ws.once('error', reject);
    });
    return client;
  }

  /** Connects with the subprotocol tidegate.v1 and takes the welcome. */
  static async v1(url: string, options: OpenOptions = {}): Promise<TestClient> {
    const client = await TestClient.open(url, {
      ...options,
      protocols: ['tidegate.v1', ...(options.protocols ?? [])],
    });
    await client.json((it) => it.type === 'welcome');
    return client;
  }

  /** Takes the next text frame. */
  async text(): Promise<string> {
    await until(() => this.inbox.length > 0 || this.ended !== undefined, { what: 'a message' });
    const text = this.inbox.shift();
    if (text === undefined) throw new Error(`the connection ended instead: ${JSON.stringify(this.ended)}`);
    return text;
  }

  /** Takes the first JSON frame that fits, and leaves the others in the inbox. */
  async json(fits: (message: Json) => boolean = () => true): Promise<Json> {
    const find = () => this.inbox.findIndex((text) => text.startsWith('{') && fits(JSON.parse(text) as Json));
    await until(() => find() !== -1 || this.ended !== undefined, { what: `a message that fits ${fits}` });
    const at = find();
    if (at === -1)
      throw new Error(
        `the connection ended instead: ${JSON.stringify(this.ended)}; inbox: ${this.inbox.join(' ')}`,
      );
    return JSON.parse(this.inbox.splice(at, 1)[0] ?? '') as Json;
  }

  send(message: Json | string): void {
    this.ws.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  #ref = 0;

  /** Sends a command and takes its answer, `ok` or `error`. */
  async call(command: Json): Promise<Json> {
    const ref = `call-${++this.#ref}`;
    this.send({ ...command, ref });
    return this.json((it) => it.ref === ref);
  }

  /** Resolves when the connection has ended. */
  async close(): Promise<Ended> {
    await until(() => this.ended !== undefined, { what: 'the connection to end' });
    return this.ended ?? { code: 0, reason: '' };
  }

  /** Ends the connection from this side. */
  async leave(): Promise<void> {
    this.ws.close();
    await this.close();
  }
}
