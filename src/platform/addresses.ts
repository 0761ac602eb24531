// Addresses: which of them are one peer's.

import { isIPv6 } from 'node:net';

const GROUPS = 8;

/** Who an address counts as where limits are for one peer each. An IPv6 address counts as its /64, because whoever has
 * one has all of those, and could come from another each time. One that stands for an IPv4 address counts as that.
 * Total: what is no address counts as itself. */
export function peerOf(address: string): string {
  if (!address.includes(':')) return address;
  const [plain = ''] = address.split('%'); // without the zone
  if (!isIPv6(plain)) return address;
  const groups = groupsOf(plain);
  const prefix = groups.slice(0, 6).join(':');
  if (IPV4_PREFIXES.has(prefix)) {
    return groups
      .slice(6)
      .flatMap((group) => [group >> 8, group & 0xff])
      .join('.');
  }
  return `${groups
    .slice(0, 4)
    .map((group) => group.toString(16))
    .join(':')}::/64`;
}

/** ::ffff:0:0/96, as sockets show IPv4 addresses that listen on both, and 64:ff9b::/96, as NAT64 does (RFC 6052). */
const IPV4_PREFIXES = new Set([[0, 0, 0, 0, 0, 0xffff].join(':'), [0x64, 0xff9b, 0, 0, 0, 0].join(':')]);

/** The eight numbers of a valid IPv6 address. */
function groupsOf(address: string): number[] {
  const [left = '', right] = address.split('::');
  const before = numbers(left);
  const after = numbers(right ?? '');
  return [...before, ...new Array<number>(GROUPS - before.length - after.length).fill(0), ...after];
}

function numbers(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}
