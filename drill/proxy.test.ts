import { describe, expect, test } from 'vitest';
import { replyEnd } from './proxy.ts';

const replies = [
  '+OK\r\n',
  '-ERR no\r\n',
  ':42\r\n',
  '_\r\n',
  '$-1\r\n',
  '$0\r\n\r\n',
  '$6\r\n*1\r\n:1\r\n',
  '*-1\r\n',
  '*0\r\n',
  '*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n\r\n\r\n',
  '*2\r\n*2\r\n:1\r\n$1\r\nx\r\n+y\r\n',
  '>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n',
  '%1\r\n+key\r\n*1\r\n:1\r\n',
  '=7\r\ntxt:abc\r\n',
];

describe('the end of a reply', () => {
  test.each(replies)('is found in %j, and not before all of it is there', (reply) => {
    const bytes = Buffer.from(reply);
    expect(replyEnd(Buffer.concat([bytes, Buffer.from('+next\r\n')]), 0)).toBe(bytes.length);
    for (let length = 0; length < bytes.length; length += 1) {
      expect(replyEnd(bytes.subarray(0, length), 0)).toBe(-1);
    }
  });
});
