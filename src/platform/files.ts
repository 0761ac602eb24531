// Files: what the process has read at its start and reads again when it changes, so that a rotation needs no restart.

import { readFile } from 'node:fs/promises';
import { faultsOf, valueIn } from './config.ts';
import type { Log } from './logs.ts';
import type { Metrics } from './metrics.ts';

/** A file to look after. */
export interface WatchedFile {
  /** The setting that names it, in logs and metrics. */
  readonly setting: string;
  readonly path: string;
  /** What of it is in use already, as {@link valueIn} gives it. */
  readonly text: string;
  /** Puts a new text into use and returns what is worth a log line; throws where it cannot be used, and has then
   * changed nothing. */
  apply(text: string): Promise<Details> | Details;
}

/** The metrics that say what came of it. */
export type FileMetrics = Pick<Metrics, 'configReloads' | 'configValid' | 'configLoaded'>;

/** What is told of a text that was put into use. Never a secret. */
export type Details = Readonly<Record<string, number | string>>;

/** How a file was found: its text, or why it could not be read. */
type Look = { readonly text: string } | { readonly fault: string };

interface Watch extends WatchedFile {
  inUse: string;
  seen: Look;
  /** The last look that something came of. */
  judged: Look;
}

/** How often files are looked at. What Kubernetes takes to bring a change to the pod is a hundred times as long. */
const INTERVAL_MS = 1000;

/** Reads files again and compares what they hold, rather than asking to be told of changes or comparing times: it is the
 * same on every file system, and where Kubernetes swaps the symbolic link of the whole folder. They are small. */
export class Files {
  readonly #log: Log;
  readonly #metrics: FileMetrics;
  readonly #intervalMs: number;
  readonly #watches: Watch[] = [];
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(log: Log, metrics: FileMetrics, intervalMs = INTERVAL_MS) {
    this.#log = log;
    this.#metrics = metrics;
    this.#intervalMs = intervalMs;
  }

  /** Looks after a file from now on. */
  watch(file: WatchedFile): void {
    const look = { text: file.text };
    this.#watches.push({
      ...file,
      apply: (text) => file.apply(text),
      inUse: file.text,
      seen: look,
      judged: look,
    });
    for (const result of ['ok', 'failed']) this.#metrics.configReloads.inc({ file: file.setting, result }, 0);
    this.#inUse(file.setting);
    this.#timer ??= this.#later();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #later(): NodeJS.Timeout {
    return setTimeout(() => void this.#lookAtAll(), this.#intervalMs).unref();
  }

  async #lookAtAll(): Promise<void> {
    for (const watch of this.#watches) await this.#lookAt(watch);
    if (!this.#stopped) this.#timer = this.#later();
  }

  async #lookAt(watch: Watch): Promise<void> {
    const look = await read(watch.path);
    // Somebody may be in the middle of writing it: it counts once it is found the same twice.
    const isSettled = isSame(look, watch.seen);
    watch.seen = look;
    if (!isSettled || isSame(look, watch.judged) || this.#stopped) return;
    watch.judged = look;
    const { setting: file } = watch;
    try {
      if ('fault' in look) throw new Error(look.fault);
      // Where a bad change was taken back there is nothing to do.
      const details = look.text === watch.inUse ? {} : await watch.apply(look.text);
      watch.inUse = look.text;
      this.#metrics.configReloads.inc({ file, result: 'ok' });
      this.#inUse(file);
      this.#log.info({ file, ...details }, 'the file has changed and is in use');
    } catch (error) {
      this.#metrics.configReloads.inc({ file, result: 'failed' });
      this.#metrics.configValid.set({ file }, 0);
      this.#log.error(
        { file, faults: faultsOf(error) },
        'the file has changed and cannot be used: what it held before goes on',
      );
    }
  }

  #inUse(file: string): void {
    this.#metrics.configValid.set({ file }, 1);
    this.#metrics.configLoaded.set({ file }, Date.now() / 1000);
  }
}

async function read(path: string): Promise<Look> {
  try {
    const text = valueIn(await readFile(path, 'utf8'));
    return text === undefined ? { fault: 'it is empty' } : { text };
  } catch (error) {
    return { fault: `it cannot be read: ${(error as Error).message}` };
  }
}

function isSame(one: Look, other: Look): boolean {
  return 'text' in one
    ? 'text' in other && one.text === other.text
    : 'fault' in other && one.fault === other.fault;
}
