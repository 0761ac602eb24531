import { describe, expect, it } from 'vitest';
import { actionAfter, type Close, closeCodeLabel, closes } from './close.ts';

const table: [string, Close][] = Object.entries(closes);

describe('the close table', () => {
  it('has each code once', () => {
    const codes = table.map(([, { code }]) => code);
    expect(new Set(codes).size).toBe(codes.length);
  });

  it.each(table)(
    'has a reason for %s that fits a close frame, and says what it means',
    (_name, { code, reason, help }) => {
      expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123);
      expect(reason).not.toBe('');
      expect(help).toMatch(/\.$/);
      // RFC 6455 7.4: those of the protocol, and those that are free for private use.
      expect((code >= 1000 && code <= 1015) || (code >= 4400 && code <= 4499)).toBe(true);
    },
  );

  it('keeps the documented codes', () => {
    expect(Object.fromEntries(table.map(([name, { code, action }]) => [name, `${code} ${action}`]))).toEqual({
      binary: '1003 stop',
      channelLost: '4407 reconnect',
      refused: '1008 refresh',
      tooLarge: '1009 stop',
      drain: '1012 reconnect',
      overload: '1013 reconnect',
      shed: '4400 reconnect',
      slow: '4401 reconnect',
      expired: '4402 refresh',
      revoked: '4403 stop',
      rate: '4404 reconnect',
      malformed: '4405 stop',
      unresponsive: '1006 reconnect',
      userLimit: '4406 reconnect',
    });
  });
});

describe('actionAfter', () => {
  it('is what the table says, and to reconnect after any other code', () => {
    for (const [, { code, action }] of table) expect(actionAfter(code)).toBe(action);
    for (const code of [0, 1000, 1001, 1005, 1011, 1015, 4000, 4999, Number.NaN])
      expect(actionAfter(code)).toBe('reconnect');
  });
});

describe('closeCodeLabel', () => {
  it('makes no more labels than there are known codes, whatever code a peer makes up', () => {
    const labels = new Set(Array.from({ length: 65_536 }, (_, code) => closeCodeLabel(code)));
    expect(labels).toContain('other');
    expect(labels).toContain('4401');
    expect(labels.size).toBeLessThanOrEqual(16 + table.length + 1);
  });
});
