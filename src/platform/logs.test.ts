import { expect, test } from 'vitest';
import { nameTrace, traceFieldsOf } from './logs.ts';

test('an error that was thrown in a trace leads to it, and any other to nothing', () => {
  const error = new Error('failed');
  expect(traceFieldsOf(error)).toEqual({});
  nameTrace(error, { traceId: 'a', spanId: 'b' });
  expect(traceFieldsOf(error)).toEqual({ trace_id: 'a', span_id: 'b' });
  for (const thrown of ['a text', 1, null, undefined]) {
    nameTrace(thrown, { traceId: 'a', spanId: 'b' });
    expect(traceFieldsOf(thrown)).toEqual({});
  }
});
