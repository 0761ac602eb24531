// Files that the configuration names: channels, secrets, keys, passwords. What they say is found before anything
// listens, with every fault at once; which of them may change while the gateway runs is in gateway.ts.

import { readFileSync } from 'node:fs';
import type { RedisAddress } from '../bus/redis-connect.ts';
import { type Config, ConfigError, faultsOf, valueIn } from '../platform/config.ts';
import type { WatchedFile } from '../platform/files.ts';
import type { Report } from '../platform/logs.ts';
import { ApiKeys } from './api-keys.ts';
import { anonymous, tokenAuthenticator } from './authenticate.ts';
import { type Channels, readChannels } from './channels.ts';
import { SharedSecrets } from './shared-secrets.ts';

/** Everything about the configuration that the variables do not show by themselves, found before anything listens.
 * @throws {ConfigError} with every fault at once. */
export async function readFiles(config: Config, report: Report) {
  const [inChannels, inTokens, inApi] = await allFaults([
    readChannelsFile(config),
    createAuthenticator(config, report),
    readApiKeys(config),
    checkRedis(config),
  ]);
  return { ...inChannels, ...inTokens, ...inApi };
}

async function readChannelsFile(config: Config) {
  const channelsFile = readText('CHANNELS_FILE', config.CHANNELS_FILE);
  const text = channelsFile?.text ?? config.CHANNELS;
  const channels = await faultsNamed(channelsFile?.setting ?? 'CHANNELS', () => parseChannels(config, text));
  return { channelsFile, channels };
}

/** Channels as a file has them now. @throws with every fault of the text. */
export async function parseChannels(config: Config, text: string | undefined): Promise<Channels> {
  return readChannels(text, {
    plainChannel: config.PLAIN_CHANNEL,
    maxMessageBytes: config.MAX_MESSAGE_BYTES,
    anonymous: config.AUTH === 'anonymous',
  });
}

async function checkRedis(config: Config): Promise<void> {
  if (config.REDIS_URL === undefined) return;
  const { RedisConnector } = await import('../bus/redis-connect.ts');
  readText('REDIS_CA_FILE', config.REDIS_CA_FILE);
  new RedisConnector(redisAddress(config, config.REDIS_URL));
}

/** Where Redis is, as the configuration says. */
export function redisAddress(config: Config, url: string): RedisAddress {
  return {
    url,
    mode: config.REDIS_MODE,
    sentinelName: config.REDIS_SENTINEL_NAME,
    username: config.REDIS_USERNAME,
    password: config.REDIS_PASSWORD,
    sentinelPassword: config.REDIS_SENTINEL_PASSWORD,
    caFile: config.REDIS_CA_FILE,
  };
}

async function createAuthenticator(config: Config, report: Report) {
  if (config.AUTH === 'anonymous') return { secrets: undefined, authenticator: anonymous };
  const { JWT_SECRET, JWKS_URL, JWT_ALGORITHMS, JWT_AUDIENCE, JWT_ISSUER } = config;
  const secrets =
    JWT_SECRET === undefined
      ? undefined
      : await faultsNamed('JWT_SECRET', () => new SharedSecrets(JWT_SECRET));
  const options = {
    secrets,
    jwksUrl: JWKS_URL,
    algorithms: JWT_ALGORITHMS,
    audience: JWT_AUDIENCE,
    issuer: JWT_ISSUER,
  };
  return { secrets, authenticator: await tokenAuthenticator(options, report) };
}

async function readApiKeys(config: Config) {
  const apiKeysFile = readText('API_KEYS_FILE', config.API_KEYS_FILE);
  const apiKeys =
    apiKeysFile && (await faultsNamed(apiKeysFile.setting, () => new ApiKeys(apiKeysFile.text)));
  return { apiKeysFile, apiKeys };
}

/** A file that a setting names, and what was in it at the start. */
export type FileText = Omit<WatchedFile, 'apply'>;

/** The file that the value of a setting was read from, if it was. */
export function fileOf(
  config: Config,
  key: 'JWT_SECRET' | 'ADMIN_TOKEN' | 'REDIS_PASSWORD' | 'REDIS_SENTINEL_PASSWORD',
): FileText | undefined {
  const [path, text] = [config.files[key], config[key]];
  return path === undefined || text === undefined ? undefined : { setting: `${key}_FILE`, path, text };
}

/** @throws {Error} where the file cannot be read. */
function readText(setting: string, path: string | undefined): FileText | undefined {
  if (path === undefined) return undefined;
  try {
    return { setting, path, text: valueIn(readFileSync(path, 'utf8')) ?? '' };
  } catch (error) {
    throw new Error(
      `${setting} names a file that cannot be read: ${error instanceof Error ? error.message : error}`,
    );
  }
}

/** Says of each fault which setting it is of. */
async function faultsNamed<T>(setting: string, make: () => T | Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    throw new ConfigError(faultsOf(error).map((fault) => `${setting}: ${fault}`));
  }
}

/** Waits for all, and throws what is wrong with any of them at once. */
async function allFaults<T extends readonly unknown[]>(
  promises: { [K in keyof T]: Promise<T[K]> },
): Promise<T> {
  const results = await Promise.allSettled(promises);
  const faults = results.flatMap((result) => {
    return result.status === 'fulfilled' ? [] : faultsOf(result.reason);
  });
  if (faults.length > 0) throw new ConfigError(faults);
  return results.map((result) => (result.status === 'fulfilled' ? result.value : undefined)) as unknown as T;
}
