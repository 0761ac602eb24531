import { errors } from 'jose';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Behaviour, type Issuer, type IssuerKey, startIssuer } from '../../test/issuer.ts';
import { TokenRefused } from './authenticate.ts';
import { KeySet, type KeySetTimes } from './keyset.ts';

let issuer: Issuer;
const reports: unknown[] = [];

beforeEach(async () => {
  issuer = await startIssuer('ES256');
  reports.length = 0;
});
afterEach(() => issuer.close());

function keySet(times: Partial<KeySetTimes> = {}): KeySet {
  return new KeySet(new URL(issuer.url), (_stage, error) => reports.push(error), {
    perSecond: 0.001,
    ...times,
  });
}

/** Asks for a key, as the check of a token with this header does. */
async function find(keys: KeySet, kid: string | undefined, alg = 'ES256'): Promise<unknown> {
  return keys.keyFor({ alg, ...(kid !== undefined && { kid }) }, { payload: '', signature: '' });
}

/** As short as a fetch from this process can surely be. */
const timeoutMs = 1500;

const kidOf = (key: IssuerKey) => key.jwk.kid;
const unavailable = { name: 'TokenRefused', retryable: true, message: 'the keys cannot be fetched now' };

describe('KeySet', () => {
  it('fetches nothing until a key is needed, and then once for all who wait', async () => {
    const keys = keySet();
    expect(issuer.requests).toBe(0);
    await Promise.all(Array.from({ length: 50 }, () => find(keys, kidOf(issuer.key))));
    expect(issuer.requests).toBe(1);
    await find(keys, kidOf(issuer.key));
    expect(issuer.requests).toBe(1);
  });

  it('finds a key that was taken into use after the last fetch, at once', async () => {
    const keys = keySet();
    const old = issuer.key;
    await find(keys, kidOf(old));
    const next = await issuer.rotate({ keepOld: true });
    await find(keys, kidOf(next));
    await find(keys, kidOf(old));
    expect(issuer.requests).toBe(2);
    await issuer.rotate();
    await find(keys, kidOf(issuer.key));
    await expect(find(keys, kidOf(old))).rejects.toThrow(errors.JWKSNoMatchingKey);
  });

  it('does not turn a flood of unknown key ids into a flood of requests', async () => {
    const keys = keySet({ burst: 3 });
    const refusals = await Promise.allSettled(
      Array.from({ length: 200 }, (_, at) => find(keys, `made-up-${at}`)),
    );
    for (let at = 0; at < 50; at += 1)
      await expect(find(keys, `one-by-one-${at}`)).rejects.toThrow(errors.JWKSNoMatchingKey);
    expect(issuer.requests).toBe(3);
    for (const refusal of refusals)
      expect(refusal).toMatchObject({ status: 'rejected', reason: { code: 'ERR_JWKS_NO_MATCHING_KEY' } });
    await find(keys, kidOf(issuer.key));
  });

  it('looks for unknown keys again after a while', async () => {
    const keys = keySet({ burst: 2, perSecond: 20 });
    await find(keys, kidOf(issuer.key));
    await expect(find(keys, 'unknown')).rejects.toThrow(errors.JWKSNoMatchingKey);
    const next = await issuer.rotate();
    await expect.poll(() => find(keys, kidOf(next)).then(() => true)).toBe(true);
  });

  it.each<Behaviour>(['status 500', 'garbage', 'no key set', 'redirect', 'silence', 'half'])(
    'says that it is not the token’s fault while the answer is: %s',
    async (behaviour) => {
      const keys = keySet({ timeoutMs });
      issuer.behaviour = behaviour;
      await expect(find(keys, kidOf(issuer.key))).rejects.toMatchObject(unavailable);
      expect(reports).toHaveLength(1);
      issuer.behaviour = 'well';
      await find(keys, kidOf(issuer.key));
      expect(reports).toHaveLength(1);
    },
  );

  it('says that it is not the token’s fault while nobody answers, and asks rarely', async () => {
    const keys = keySet({ burst: 3 });
    await issuer.close();
    for (let at = 0; at < 20; at += 1)
      await expect(find(keys, kidOf(issuer.key))).rejects.toMatchObject(unavailable);
    expect(reports).toHaveLength(3);
  });

  it('goes on with the keys it has while new ones cannot be fetched, and waits for that only once', async () => {
    const keys = keySet({ maxAgeMs: 0, timeoutMs, burst: 1000 });
    await find(keys, kidOf(issuer.key));
    issuer.behaviour = 'silence';
    await find(keys, kidOf(issuer.key)); // waited, in vain
    expect(reports).toHaveLength(1);
    await find(keys, kidOf(issuer.key)); // not waited: the second fetch has not failed yet
    expect(reports).toHaveLength(1);
    await expect(find(keys, 'unknown')).rejects.toMatchObject(unavailable);
    expect(reports).toHaveLength(2);
  });

  it('gives a withdrawn key up when its keys are old', async () => {
    const keys = keySet({ maxAgeMs: 0, burst: 1000 });
    const old = issuer.key;
    await find(keys, kidOf(old));
    await issuer.rotate();
    await expect(find(keys, kidOf(old))).rejects.toThrow(errors.JWKSNoMatchingKey);
  });

  it('gives no key of another kind than the token’s algorithm', async () => {
    const keys = keySet();
    await expect(find(keys, kidOf(issuer.key), 'RS256')).rejects.toThrow(errors.JWKSNoMatchingKey);
    await expect(find(keys, kidOf(issuer.key), 'HS256')).rejects.toThrow(errors.JOSENotSupported);
  });

  it('names no address in what a client is told', async () => {
    await issuer.close();
    const refusal = await find(keySet(), 'x').catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(TokenRefused);
    expect((refusal as TokenRefused).message).not.toMatch(/127|http/);
  });
});
