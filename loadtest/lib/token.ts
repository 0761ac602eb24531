// Tokens: one for each user, signed here where the script is given the gateway's secret.

import { hmac } from 'k6/crypto';
import { b64encode } from 'k6/encoding';
import { jwtSecret } from './settings.ts';

const LIFE_SECONDS = 86_400;

/** A token that lets the user do everything, or undefined where the gateway wants none. */
export function tokenOf(user: string): string | undefined {
  if (jwtSecret === undefined) return undefined;
  const claims = {
    sub: user,
    exp: Math.floor(Date.now() / 1000) + LIFE_SECONDS,
    channels: { subscribe: ['*'], publish: ['*'] },
    send: ['*'],
  };
  const signed = [{ alg: 'HS256', typ: 'JWT' }, claims]
    .map((part) => b64encode(JSON.stringify(part), 'rawurl'))
    .join('.');
  return `${signed}.${hmac('sha256', jwtSecret, signed, 'base64rawurl')}`;
}
