import { isIP } from 'node:net';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { peerOf } from './addresses.ts';

test.each([
  ['203.0.113.7', '203.0.113.7'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:DB8:1:2::', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
  ['fe80::1:2%eth0', 'fe80:0:0:0::/64'],
  ['::ffff:203.0.113.7', '203.0.113.7'],
  ['::FFFF:cb00:7107', '203.0.113.7'],
  ['64:ff9b::203.0.113.7', '203.0.113.7'],
  ['2001:db8:1:2:3:4:203.0.113.7', '2001:db8:1:2::/64'],
  ['', ''],
  ['unknown', 'unknown'],
  ['203.0.113.7:443', '203.0.113.7:443'],
  ['1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7:8:9'],
])('takes %s for %s', (address, peer) => {
  expect(peerOf(address)).toBe(peer);
});

test('takes all of a /64 for one peer, however it is written, and another for another', () => {
  fc.assert(
    fc.property(fc.ipV6(), (address) => {
      const peer = peerOf(address);
      if (isIP(peer) === 4) return;
      const network = peer.replace('::/64', '');
      expect(peerOf(`${network}:1:2:3:4`)).toBe(peer);
      expect(peerOf(`${network}:ffff:0:0:1`.toUpperCase())).toBe(peer);
      const [first = '', ...rest] = network.split(':');
      const other = (Number.parseInt(first, 16) ^ 1).toString(16);
      expect(peerOf(`${[other, ...rest].join(':')}:1:2:3:4`)).not.toBe(peer);
    }),
  );
});

test('takes whatever it is given for something', () => {
  fc.assert(fc.property(fc.string(), (text) => void expect(peerOf(text)).toBeTypeOf('string')));
});
