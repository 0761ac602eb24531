// Memory: how full Redis is, of the server that is closest to its limit. A full one refuses what is to be kept.

/** How often it is asked. A dashboard's resolution, and nothing to Redis. */
const INTERVAL_MS = 10_000;

/** Asks every server for its memory, from time to time. */
export class RedisMemory {
  /** What is used; 0 until it is known. What was last heard stays while Redis is away. */
  usedBytes = 0;
  /** What may be used; 0 where there is no limit. */
  maxBytes = 0;
  readonly #ask: () => Promise<unknown>[];
  #timer: NodeJS.Timeout | undefined;

  /** `ask` sends `INFO memory` to every server. */
  constructor(ask: () => Promise<unknown>[]) {
    this.#ask = ask;
  }

  start(): void {
    this.#timer = setInterval(() => void this.look(), INTERVAL_MS).unref();
    void this.look();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async look(): Promise<void> {
    const answers = await Promise.allSettled(this.#ask());
    const servers = answers.flatMap((answer) =>
      answer.status === 'fulfilled' ? [readMemory(String(answer.value))] : [],
    );
    const [fullest] = servers.sort((one, other) => fullness(other) - fullness(one));
    if (fullest === undefined) return;
    this.usedBytes = fullest.usedBytes;
    this.maxBytes = fullest.maxBytes;
  }
}

interface Memory {
  readonly usedBytes: number;
  readonly maxBytes: number;
}

/** What an answer to `INFO memory` says; 0 for what it does not. */
export function readMemory(info: string): Memory {
  const field = (name: string) => Number(new RegExp(`^${name}:(\\d+)\\r?$`, 'm').exec(info)?.[1] ?? 0);
  return { usedBytes: field('used_memory'), maxBytes: field('maxmemory') };
}

/** Servers with a limit come first, and of those without the one that uses most. */
function fullness({ usedBytes, maxBytes }: Memory): number {
  return maxBytes === 0 ? usedBytes / Number.MAX_SAFE_INTEGER : usedBytes / maxBytes;
}
