// Scripts: how Lua runs in Redis, by its digest, and sent whole only to a Redis that does not know it yet.

import { createHash } from 'node:crypto';
import type { RedisCommands } from './redis-connection.ts';

/** A Lua script and the name Redis knows it by. */
export interface Script {
  readonly text: string;
  readonly sha: string;
}

/** A script to be run by its digest. */
export function script(text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') };
}

/** Runs a script. A Redis that was restarted has forgotten it and says so before it does anything. */
export async function runScript(
  redis: RedisCommands,
  { text, sha }: Script,
  keys: readonly string[],
  args: readonly (string | number | Buffer)[],
  options: { buffers?: boolean } = {},
): Promise<unknown> {
  const call = (command: 'evalsha' | 'eval', what: string) => {
    const all = [what, keys.length, ...keys, ...args];
    return options.buffers ? redis.callBuffer(command, all) : redis.call(command, all);
  };
  try {
    return await call('evalsha', sha);
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
    return call('eval', text);
  }
}

/** Has a server know scripts before anything else is asked of it. Otherwise each call under way at a restart would be
 * sent a second time, and some would overtake others. */
export function preload(server: RedisCommands, scripts: readonly Script[]): void {
  for (const { text } of scripts) server.call('script', ['LOAD', text]).catch(() => {});
}
