import { expect } from 'vitest';
import { RawPeer, upgradeRequest } from '../test/raw.ts';
import { token, tokenSecret } from '../test/tokens.ts';
import { until } from '../test/until.ts';
import { many, statusOf } from './peers.ts';
import { openStage } from './stage.ts';

const { gateway, attack } = await openStage(
  'origins',
  { AUTH: 'jwt', JWT_SECRET: tokenSecret, ALLOWED_ORIGINS: 'https://app.example.com' },
  (user) => `?token=${token({ sub: user })}`,
);

const cookie = `tidegate_token=${token({ sub: 'victim' })}`;

/** The status of an upgrade with these lines of headers, which may break every rule. */
async function knock(...lines: string[]): Promise<{ status: number; peer: RawPeer }> {
  const peer = await RawPeer.connect(gateway.ports.ws);
  peer.socket.write(upgradeRequest('/ws').replace(/\r\n\r\n$/, `\r\n${lines.join('\r\n')}\r\n\r\n`));
  await until(() => peer.received.includes('\r\n\r\n') || peer.ended, { what: 'an answer' });
  return { status: statusOf(peer.received.toString('latin1')), peer };
}

attack(
  {
    does: 'pages of other sites that bring the victim’s cookie, 20 ways to write an origin',
    answer: '403, or 400 where it is no header',
  },
  async () => {
    const origins = [
      'https://evil.example',
      'https://app.example.com.evil.example',
      'https://evil.example/https://app.example.com',
      'https://evil.example#https://app.example.com',
      'https://app.example.com@evil.example',
      'https://app.example.com:443',
      'https://app.example.com/',
      'https://app.example.com, https://evil.example',
      'HTTPS://APP.EXAMPLE.COM',
      'http://app.example.com',
      'https://xapp.example.com',
      'https://app-example.com',
      'https://app.example.com\tevil',
      'https://app.example.com%00.evil.example',
      'https://аpp.example.com', // a Cyrillic а
      'null',
      'file://',
      '*',
      'x'.repeat(10_000),
    ];
    await many(origins.length, async (at) => {
      const { status, peer } = await knock(`Origin: ${origins[at]}`, `Cookie: ${cookie}`);
      expect(status, origins[at]).toBeOneOf([400, 403]);
      peer.socket.destroy();
    });
    // Two headers count as one list, which is no origin.
    const two = await knock(
      'Origin: https://evil.example',
      'Origin: https://app.example.com',
      `Cookie: ${cookie}`,
    );
    expect(two.status).toBeOneOf([400, 403]);
    two.peer.socket.destroy();
  },
);

attack(
  {
    does: 'a cookie without an origin, or with an empty one',
    answer: 'the cookie is not read: 1008, or 403',
  },
  async () => {
    const without = await knock(`Cookie: ${cookie}`);
    expect(without.status).toBe(101);
    without.peer.received = without.peer.received.subarray(without.peer.received.indexOf('\r\n\r\n') + 4);
    expect(await without.peer.closed()).toBe(1008);
    const empty = await knock('Origin:', `Cookie: ${cookie}`);
    expect(empty.status).toBe(403);
    empty.peer.socket.destroy();
    const own = await knock('Origin: https://app.example.com', `Cookie: ${cookie}`);
    expect(own.status).toBe(101);
    own.peer.socket.destroy();
  },
);
