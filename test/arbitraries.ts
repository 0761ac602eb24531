// Arbitrary values for property tests: what several decoders are tried with.

import fc from 'fast-check';

/** A valid name of a channel or a user. */
export const name = fc.string({
  unit: fc.constantFrom(...'ABCXYZabcxyz0189._~@:/-'),
  minLength: 1,
  maxLength: 128,
});

/** Any UTF-16: control characters, quotes, and halves of surrogate pairs too. */
export const wildText = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 0x7f }), fc.integer({ min: 0, max: 0xffff })), { maxLength: 200 })
  .map((units) => String.fromCharCode(...units));

/** Any JSON value, now and then a text with unusual characters. */
export const json = fc.oneof(fc.jsonValue(), wildText);
