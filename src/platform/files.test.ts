import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import pino from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import type { LogLine } from '../../test/gateway.ts';
import { until } from '../../test/until.ts';
import { ConfigError } from './config.ts';
import { Files } from './files.ts';
import { createMetrics } from './metrics.ts';

const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
});

/** A file that is looked after, and what came of it. A text that begins with `bad` cannot be used. */
function watched(first = 'first') {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-files-'));
  const path = join(folder, 'keys');
  const metrics = createMetrics('test');
  const log: LogLine[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      log.push(JSON.parse(chunk.toString()) as LogLine);
      done();
    },
  });
  const applied: string[] = [];
  const files = new Files(pino(sink), metrics, 20);
  cleanUps.push(() => {
    files.stop();
    rmSync(folder, { recursive: true });
  });
  const start = () =>
    files.watch({
      setting: 'KEYS_FILE',
      path,
      text: first,
      apply(text) {
        if (text.startsWith('bad')) throw new ConfigError(['one fault', 'another']);
        applied.push(text);
        return { keys: text.length };
      },
    });
  const metric = async (name: string, labels: Record<string, string>) => {
    const { values } = (await metrics.registry.getSingleMetric(name)?.get()) ?? { values: [] };
    return values.find((it) => Object.entries(labels).every(([key, value]) => it.labels[key] === value))
      ?.value;
  };
  return {
    folder,
    path,
    files,
    applied,
    log,
    start,
    /** Waits for what comes of the next look that something comes of. */
    async next(how: 'ok' | 'failed', count: number): Promise<LogLine> {
      const lines = () => log.filter(({ level }) => level === (how === 'ok' ? 30 : 50));
      await until(() => lines().length >= count, { what: `change ${count} to be ${how}` });
      expect(lines()).toHaveLength(count);
      return lines()[count - 1] ?? {};
    },
    reloads: (result: string) => metric('tidegate_config_reloads_total', { file: 'KEYS_FILE', result }),
    valid: () => metric('tidegate_config_file_valid', { file: 'KEYS_FILE' }),
    loadedAt: () => metric('tidegate_config_loaded_timestamp_seconds', { file: 'KEYS_FILE' }),
  };
}

describe('Files', () => {
  it('puts a new text into use once, and logs what it is told of it', async () => {
    const { path, applied, start, next, reloads, valid, loadedAt } = watched();
    writeFileSync(path, 'first\n');
    start();
    const before = await loadedAt();
    writeFileSync(path, 'second\n');
    expect(await next('ok', 1)).toMatchObject({
      file: 'KEYS_FILE',
      keys: 6,
      msg: 'the file has changed and is in use',
    });
    writeFileSync(path, 'third');
    await next('ok', 2);
    // The end of the last line is none of the value, so this changes nothing.
    writeFileSync(path, 'third\n');
    writeFileSync(join(path, '..', 'other'), 'nobody looks at it');
    writeFileSync(path, 'fourth');
    await next('ok', 3);
    expect(applied).toEqual(['second', 'third', 'fourth']);
    expect([await reloads('ok'), await reloads('failed'), await valid()]).toEqual([3, 0, 1]);
    expect(await loadedAt()).toBeGreaterThan(before ?? Number.POSITIVE_INFINITY);
  });

  it('sees a change where the link of the whole folder is swapped, as Kubernetes does', async () => {
    const { folder, path, applied, start, next } = watched();
    const publish = (version: string, text: string) => {
      mkdirSync(join(folder, version));
      writeFileSync(join(folder, version, 'keys'), text);
      symlinkSync(version, join(folder, '..data_tmp'));
      renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
    };
    publish('..1', 'first');
    symlinkSync(join('..data', 'keys'), path);
    start();
    publish('..2', 'second');
    rmSync(join(folder, '..1'), { recursive: true });
    await next('ok', 1);
    expect(applied).toEqual(['second']);
  });

  it.each([
    ['cannot be used', (path: string) => writeFileSync(path, 'bad'), ['one fault', 'another']],
    ['is empty', (path: string) => writeFileSync(path, ''), ['it is empty']],
    ['has nothing but white space', (path: string) => writeFileSync(path, ' \n\n'), ['it is empty']],
    ['is gone', (path: string) => rmSync(path), [expect.stringMatching(/^it cannot be read: ENOENT/)]],
  ])('keeps what it has while a file %s, and says so once', async (_what, harm, faults) => {
    const { path, applied, start, next, reloads, valid, log } = watched();
    writeFileSync(path, 'first');
    start();
    harm(path);
    expect(await next('failed', 1)).toMatchObject({ file: 'KEYS_FILE', faults });
    expect([await reloads('failed'), await valid()]).toEqual([1, 0]);
    expect(applied).toEqual([]);
    writeFileSync(path, 'second');
    await next('ok', 1);
    expect([applied, await valid()]).toEqual([['second'], 1]);
    expect(log).toHaveLength(2);
  });

  it('does nothing but say so where a bad change is taken back', async () => {
    const { path, applied, start, next, valid } = watched();
    writeFileSync(path, 'first');
    start();
    writeFileSync(path, 'bad');
    await next('failed', 1);
    writeFileSync(path, 'first');
    await next('ok', 1);
    expect([applied, await valid()]).toEqual([[], 1]);
    writeFileSync(path, 'bad again');
    await next('failed', 2);
  });

  it('does not take a file that somebody is still writing', async () => {
    const { path, applied, start } = watched();
    writeFileSync(path, 'first');
    start();
    let text = '';
    // It changes faster than it is looked at, so that no two looks find the same.
    const writing = setInterval(() => {
      text += 'x';
      writeFileSync(path, text);
    }, 3);
    await until(() => text.length > 40, { what: 'it to be written for a while' });
    clearInterval(writing);
    await until(() => applied.length > 0, { what: 'the whole to be in use' });
    expect(applied).toEqual([text]);
  });

  it('looks no more once it is stopped', async () => {
    const { path, applied, start, files } = watched();
    const other = watched();
    for (const it of [path, other.path]) writeFileSync(it, 'first');
    start();
    other.start();
    files.stop();
    for (const it of [path, other.path]) writeFileSync(it, 'second');
    await other.next('ok', 1);
    expect(applied).toEqual([]);
  });
});
