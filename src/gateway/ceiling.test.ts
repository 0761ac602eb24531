import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ceilingDefaults, decodeCeiling } from './ceiling.ts';

describe('the decoder of ceilings', () => {
  it('takes what is given, and the defaults for the rest', () => {
    expect(decodeCeiling('{"connections":500}')).toEqual({ ...ceilingDefaults, connections: 500 });
    const full = {
      connections: 0,
      expiresAfterMs: 1500,
      shedPerSecond: 0.5,
      order: 'oldest',
      minAgeSeconds: 0,
      plain: true,
    };
    expect(decodeCeiling(JSON.stringify(full))).toEqual(full);
  });

  it('ignores fields that it does not know, also those that every object has', () => {
    const body = '{"connections":1,"later":{"x":1},"__proto__":{"plain":true},"constructor":7}';
    expect(decodeCeiling(body)).toEqual({ ...ceilingDefaults, connections: 1 });
  });

  it.each([
    ['', 'no JSON'],
    ['{"connections":5', 'no JSON'],
    ['null', 'an object'],
    ['[500]', 'an object'],
    ['"500"', 'an object'],
    ['{}', 'connections'],
    ['{"connections":"500"}', 'connections'],
    ['{"connections":-1}', 'connections'],
    ['{"connections":1.5}', 'connections'],
    ['{"connections":1e300}', 'connections'],
    ['{"connections":null}', 'connections'],
    ['{"connections":1,"expiresAfterMs":0}', 'expiresAfterMs'],
    ['{"connections":1,"expiresAfterMs":600001}', 'expiresAfterMs'],
    ['{"connections":1,"expiresAfterMs":null}', 'expiresAfterMs'],
    ['{"connections":1,"shedPerSecond":-1}', 'shedPerSecond'],
    ['{"connections":1,"shedPerSecond":1e9}', 'shedPerSecond'],
    ['{"connections":1,"order":"newest"}', 'order'],
    ['{"connections":1,"order":["random"]}', 'order'],
    ['{"connections":1,"minAgeSeconds":"30"}', 'minAgeSeconds'],
    ['{"connections":1,"plain":"yes"}', 'plain'],
  ])('says what is wrong with %s', (body, word) => {
    expect(decodeCeiling(body)).toEqual({ fault: expect.stringContaining(word) });
  });

  it('gives a ceiling within its bounds or a fault, whatever it is given', () => {
    const fields = fc.record(
      {
        connections: fc.anything(),
        expiresAfterMs: fc.oneof(fc.double(), fc.anything()),
        shedPerSecond: fc.oneof(fc.double(), fc.anything()),
        order: fc.anything(),
        minAgeSeconds: fc.oneof(fc.double(), fc.anything()),
        plain: fc.anything(),
      },
      { requiredKeys: [] },
    );
    const bodies = fc.oneof(fc.string(), fc.json(), fields.map(textOf));
    fc.assert(
      fc.property(bodies, (body) => {
        const decoded = decodeCeiling(body);
        if ('fault' in decoded) {
          expect(decoded.fault).toMatch(/\w/);
          return;
        }
        expect(Object.keys(decoded).toSorted()).toEqual(
          [...Object.keys(ceilingDefaults), 'connections'].toSorted(),
        );
        expect(decoded.connections).toBeGreaterThanOrEqual(0);
        expect(decoded.expiresAfterMs).toBeLessThanOrEqual(600_000);
        expect(decoded.shedPerSecond).toBeLessThanOrEqual(1000);
      }),
      { numRuns: 1000 },
    );
  });
});

/** JSON of anything; what JSON cannot say is no body at all. */
function textOf(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return '';
  }
}
