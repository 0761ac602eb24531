// A TCP proxy that misbehaves on demand: what a network does to a connection, and a server under test cannot.

import { createServer, connect as openSocket, type Socket } from 'node:net';

const host = '127.0.0.1';

export type StartProxyOptions = {
  /** Port of 127.0.0.1 that it leads to. */
  target: number;
};

export type TcpProxy = {
  readonly port: number;
  /** Connections that are open now. */
  readonly connections: number;
  /** Connections that were ever accepted. */
  readonly accepted: number;
  /**
   * Passes nothing on, in either direction, until `resume`: connections stay open, new ones are accepted, and neither
   * end is told that the other has left. With a text, only connections in whose first bytes it occurs, as a client's
   * name does; those that have not sent anything yet are judged when they do.
   */
  stall(text?: string): void;
  /** Passes on what was held back, in order. */
  resume(): void;
  /** Passes everything on so much later, from now on. Zero: at once. */
  delay(delayMs: number): void;
  /** Cuts every connection, or those in whose first bytes the text occurs, as a crash does: with a reset. */
  reset(text?: string): void;
  /** Lets nobody in until `accept`: new connections are reset. */
  refuse(): void;
  accept(): void;
  /** Cuts everything and stops listening; the second call does nothing. */
  stop(): Promise<void>;
};

/** How much of what a client sends first is looked at for a text. */
const openingBytes = 4096;

/**
 * Starts a proxy on a free port.
 *
 * @example
 * const proxy = await startProxy({ target: redis.port });
 * const bus = new RedisBus({ address: { url: `redis://127.0.0.1:${proxy.port}`, ... }, ... });
 * proxy.stall();
 * await until(() => bus.health.state === 'down', { what: 'the bus to notice' });
 * proxy.resume();
 */
export async function startProxy({ target }: StartProxyOptions): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  let delayMs = 0;
  let stalled: string | true | undefined;
  let refusing = false;
  let accepted = 0;

  const server = createServer((client) => {
    if (refusing) {
      client.resetAndDestroy();
      return;
    }
    const pair = new Pair(client, openSocket(target, host), {
      delayMs: () => delayMs,
      isStalled: (opening) => stalled !== undefined && (stalled === true || opening.includes(stalled)),
      onEnd: () => pairs.delete(pair),
    });
    pairs.add(pair);
    accepted += 1;
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');

  return {
    port: address.port,
    get connections() {
      return pairs.size;
    },
    get accepted() {
      return accepted;
    },
    stall(text) {
      stalled = text ?? true;
    },
    resume() {
      stalled = undefined;
      for (const pair of pairs) pair.flush();
    },
    delay(ms) {
      delayMs = ms;
    },
    reset(text = '') {
      for (const pair of pairs) if (pair.opening.includes(text)) pair.reset();
    },
    refuse() {
      refusing = true;
    },
    accept() {
      refusing = false;
    },
    async stop() {
      for (const pair of pairs) pair.reset();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

type PairOptions = {
  delayMs(): number;
  isStalled(opening: string): boolean;
  onEnd(): void;
};

/** A client's connection and the one to the target. */
class Pair {
  /** What the client sent first. */
  opening = '';
  readonly #sockets: readonly Socket[];
  readonly #lines: readonly Line[];
  readonly #options: PairOptions;
  #open = 2;

  constructor(client: Socket, target: Socket, options: PairOptions) {
    this.#sockets = [client, target];
    this.#options = options;
    this.#lines = [this.#connect(client, target), this.#connect(target, client)];
  }

  flush(): void {
    for (const line of this.#lines) line.flush();
  }

  reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
    for (const line of this.#lines) line.clear();
  }

  #connect(from: Socket, to: Socket): Line {
    const line = new Line(this.#options.delayMs, () => this.#options.isStalled(this.opening));
    from.on('data', (bytes) => {
      if (from === this.#sockets[0] && this.opening.length < openingBytes)
        this.opening += bytes.toString('latin1');
      line.pass(() => {
        if (to.write(bytes) || from.isPaused()) return;
        from.pause();
        to.once('drain', () => from.resume());
      });
    });
    from.on('end', () => line.pass(() => to.end()));
    from.on('error', () => line.pass(() => to.resetAndDestroy()));
    from.on('close', () => {
      this.#open -= 1;
      if (this.#open === 0) this.#options.onEnd();
      line.pass(() => to.destroySoon());
    });
    return line;
  }
}

/** One direction of a connection: what waits to be passed on, in order. */
class Line {
  readonly #waiting: { dueMs: number; pass: () => void }[] = [];
  readonly #delayMs: () => number;
  readonly #isStalled: () => boolean;
  #timer: NodeJS.Timeout | undefined;

  constructor(delayMs: () => number, isStalled: () => boolean) {
    this.#delayMs = delayMs;
    this.#isStalled = isStalled;
  }

  pass(pass: () => void): void {
    this.#waiting.push({ dueMs: performance.now() + this.#delayMs(), pass });
    this.flush();
  }

  flush(): void {
    clearTimeout(this.#timer);
    for (let first = this.#waiting[0]; first !== undefined && !this.#isStalled(); first = this.#waiting[0]) {
      const waitMs = first.dueMs - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.flush(), waitMs);
        return;
      }
      this.#waiting.shift();
      first.pass();
    }
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#waiting.length = 0;
  }
}
