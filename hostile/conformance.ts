// The cases of the Autobahn test suite, by their numbers in its published list, as what is sent and what must follow.

import { opcodes } from '../test/raw.ts';
import { fragments, frame } from './frame.ts';

const { text, binary, continuation, ping, pong, close } = opcodes;

/** What a case must end in. The gateway is no echo server: an echo is the plain message that brings the text back. */
export type Expected =
  /** These texts come back, in this order; then a close is answered with its code. */
  | { readonly echoes: readonly (string | Buffer)[]; readonly pongs?: readonly (string | Buffer)[] }
  /** The gateway closes with one of these codes. What came before it may have been echoed. */
  | { readonly closes: readonly number[] };

/** One case of the suite. */
export interface Case {
  readonly id: string;
  /** Each is written by itself: a frame, a part of one, or several at once. */
  readonly sends: readonly Buffer[];
  readonly expected: Expected;
  /** Where what follows is ours to decide and differs from the suite's echo server. */
  readonly differs?: string;
}

const BINARY_DIFFERS = 'binary frames are refused with 1003 by design';
const PROTOCOL_ERROR = { closes: [1002] } as const;

const t = (payload: Buffer | string, final = true) => frame({ opcode: text, payload, final });
const c = (payload: Buffer | string, final = true) => frame({ opcode: continuation, payload, final });
const p = (payload: Buffer | string = '') => frame({ opcode: ping, payload });

/** The bytes cut into pieces of so many. */
function chop(bytes: Buffer, each: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / each) }, (_, at) =>
    bytes.subarray(at * each, (at + 1) * each),
  );
}

const octets = (...frames: Buffer[]) => chop(Buffer.concat(frames), 1);
const together = (...frames: Buffer[]) => [Buffer.concat(frames)];

function numbered(section: string, cases: readonly Omit<Case, 'id'>[], from = 1): Case[] {
  return cases.map((it, at) => ({ id: `${section}.${from + at}`, ...it }));
}

const echo = (payload: string | Buffer, sends: readonly Buffer[] = [t(payload)]): Omit<Case, 'id'> => ({
  sends,
  expected: { echoes: [payload] },
});

const fails = (...sends: Buffer[]): Omit<Case, 'id'> => ({ sends, expected: PROTOCOL_ERROR });

const refusesBinary = (...sends: Buffer[]): Omit<Case, 'id'> => ({
  sends,
  expected: { closes: [1003] },
  differs: BINARY_DIFFERS,
});

// 1: framing

const sizes = [0, 125, 126, 127, 128, 65_535, 65_536];
const framing = [
  ...numbered('1.1', [
    ...sizes.map((size) => echo('*'.repeat(size))),
    echo('*'.repeat(65_536), chop(t('*'.repeat(65_536)), 997)),
  ]),
  ...numbered('1.2', [
    ...sizes.map((size) => refusesBinary(frame({ opcode: binary, payload: Buffer.alloc(size, 0xfe) }))),
    refusesBinary(...chop(frame({ opcode: binary, payload: Buffer.alloc(65_536, 0xfe) }), 997)),
  ]),
];

// 2: pings and pongs

const answersPings = (sends: readonly Buffer[], ...pongs: (string | Buffer)[]): Omit<Case, 'id'> => ({
  sends,
  expected: { echoes: [], pongs },
});
const notText = Buffer.from([0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff]);
const ten = Array.from({ length: 10 }, (_, at) => `payload-${at}`);
const control = [
  ...numbered('2', [
    answersPings([p()], ''),
    answersPings([p('Hello, world!')], 'Hello, world!'),
    answersPings([p(notText)], notText),
    answersPings([p('x'.repeat(125))], 'x'.repeat(125)),
    fails(p('x'.repeat(126))),
    answersPings(octets(p('x'.repeat(125))), 'x'.repeat(125)),
    answersPings([frame({ opcode: pong })]),
    answersPings([frame({ opcode: pong, payload: 'unsolicited' })]),
    answersPings([frame({ opcode: pong, payload: 'unsolicited' }), p('ping')], 'ping'),
    answersPings(
      ten.map((it) => p(it)),
      ...ten,
    ),
    answersPings(octets(...ten.map((it) => p(it))), ...ten),
  ]),
];

// 3: reserved bits. 4: opcodes.

const hello = 'Hello, world!';
const reservedBits = [
  ...numbered('3', [
    fails(frame({ opcode: text, payload: hello, reserved: 1 })),
    fails(t(hello), frame({ opcode: text, payload: hello, reserved: 2 }), p()),
    fails(t(hello), frame({ opcode: text, payload: hello, reserved: 3 }), p()),
    fails(...octets(t(hello), frame({ opcode: text, payload: hello, reserved: 4 }), p())),
    fails(frame({ opcode: binary, payload: notText, reserved: 5 })),
    fails(frame({ opcode: ping, payload: hello, reserved: 6 })),
    fails(frame({ opcode: close, reserved: 7 })),
  ]),
];
const unknownOpcodes = [
  [3, 4, 5, 6, 7],
  [11, 12, 13, 14, 15],
].flatMap((five, at) =>
  numbered(
    `4.${at + 1}`,
    five.map((opcode, nth) => {
      const strange = frame({ opcode, payload: nth % 2 === 0 ? '' : 'reserved' });
      if (nth < 2) return fails(strange);
      return nth < 4 ? fails(t(hello), strange, p()) : fails(...octets(t(hello), strange, p()));
    }),
  ),
);

// 5: fragmentation

const [one, two] = ['fragment1', 'fragment2'];
const inTwo = [t(one, false), c(two)];
const withPing = [t(one, false), p('ping'), c(two)];
const strayEnd = [c('non-continuation payload', true), t(hello)];
const strayBegin = [c('non-continuation payload', false), t(hello)];
const pingsBetween = [
  t('fragment1', false),
  c('fragment2', false),
  p('pongme 1!'),
  c('fragment3', false),
  c('fragment4', false),
  p('pongme 2!'),
  c('fragment5'),
];
const echoesPings = (sends: readonly Buffer[], message: string, ...pongs: string[]): Omit<Case, 'id'> => ({
  sends,
  expected: { echoes: [message], pongs },
});
const fragmentation = numbered('5', [
  fails(frame({ opcode: ping, payload: one, final: false }), c(two)),
  fails(frame({ opcode: pong, payload: one, final: false }), c(two)),
  echo(one + two, together(...inTwo)),
  echo(one + two, inTwo),
  echo(one + two, octets(...inTwo)),
  echoesPings(together(...withPing), one + two, 'ping'),
  echoesPings(withPing, one + two, 'ping'),
  echoesPings(octets(...withPing), one + two, 'ping'),
  fails(...together(...strayEnd)),
  fails(...strayEnd),
  fails(...octets(...strayEnd)),
  fails(...together(...strayBegin)),
  fails(...strayBegin),
  fails(...octets(...strayBegin)),
  fails(...together(...inTwo, c('fragment3', false), t('fragment4'))),
  fails(...[1, 2].flatMap(() => [c(one, false), t('fragment2', false), c('fragment3')])),
  fails(...[1, 2].flatMap(() => [c(one, true), t('fragment2', false), c('fragment3')])),
  fails(t(one, false), t(two)),
  echoesPings(pingsBetween, 'fragment1fragment2fragment3fragment4fragment5', 'pongme 1!', 'pongme 2!'),
  echoesPings(
    pingsBetween.flatMap((it) => chop(it, 5)),
    'fragment1fragment2fragment3fragment4fragment5',
    'pongme 1!',
    'pongme 2!',
  ),
]);

// 6: UTF-8

const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const kosme = bytes('ceba e1bdb9 cf83 cebc ceb5');
const bad = bytes('ceba e1bdb9 cf83 cebc ceb5 eda080 656469746564');
const beyond = [kosme, bytes('f4908080'), bytes('656469746564')] as const;
const invalid = (sends: readonly Buffer[], differs?: string): Omit<Case, 'id'> => ({
  sends,
  expected: { closes: [1007] },
  ...(differs !== undefined && { differs }),
});
const NOT_FAIL_FAST = 'text is checked when the message is whole, which the suite calls non-strict';
const umlauts = 'Hello-µ@ßöäüàá-UTF-8!!';
const utf8 = [
  ...numbered('6.1', [
    echo(''),
    echo('', [t('', false), c('', false), c('')]),
    echo('middle', [t('', false), c('middle', false), c('')]),
  ]),
  ...numbered('6.2', [
    echo(umlauts),
    echo(umlauts, [t('Hello-µ@ßöä', false), c('üàá-UTF-8!!')]),
    echo(umlauts, fragments(text, umlauts, 1)),
    echo(kosme, fragments(text, kosme, 1)),
  ]),
  ...numbered('6.3', [invalid([t(bad)]), invalid(fragments(text, bad, 1))]),
  ...numbered('6.4', [
    invalid([t(beyond[0], false), c(beyond[1], false), c(beyond[2])], NOT_FAIL_FAST),
    invalid(
      [
        t(Buffer.concat([beyond[0], bytes('f4')]), false),
        c(bytes('90'), false),
        c(bytes('8080656469746564')),
      ],
      NOT_FAIL_FAST,
    ),
    invalid(cutAt(t(Buffer.concat(beyond)), 6 + 11, 6 + 15), NOT_FAIL_FAST),
    invalid(cutAt(t(Buffer.concat(beyond)), 6 + 12, 6 + 13), NOT_FAIL_FAST),
  ]),
];

function cutAt(whole: Buffer, first: number, second: number): Buffer[] {
  return [whole.subarray(0, first), whole.subarray(first, second), whole.subarray(second)];
}

/** Sections 6.5 to 6.23, after Markus Kuhn's stress test of decoders: whether each sequence is UTF-8, and its bytes. */
const sequences: readonly (readonly (readonly [boolean, Buffer])[])[] = [
  [
    [true, bytes('68656c6c6f 24 776f726c64')],
    [true, bytes('68656c6c6f c2a2 776f726c64')],
    [true, bytes('68656c6c6f e282ac 776f726c64')],
    [true, bytes('68656c6c6f f0a4ada2 776f726c64')],
    [true, kosme],
  ],
  Array.from(kosme, (_, at) => [[2, 5, 7, 9, 11].includes(at + 1), kosme.subarray(0, at + 1)] as const),
  all(true, '00', 'c280', 'e0a080', 'f0908080'),
  all(false, 'f888808080', 'fc8480808080'),
  all(true, '7f', 'dfbf', 'efbfbf', 'f48fbfbf'),
  all(false, 'f7bfbfbf', 'fbbfbfbfbf', 'fdbfbfbfbfbf'),
  [...all(true, 'ed9fbf', 'ee8080', 'efbfbd', 'f48fbfbf'), ...all(false, 'f4908080')],
  [
    ...all(false, '80', 'bf', '80bf', '80bf80', '80bf80bf', '80bf80bf80', '80bf80bf80bf'),
    [false, Buffer.from(range(0x80, 0xbf))],
  ],
  (
    [
      [0xc0, 0xdf],
      [0xe0, 0xef],
      [0xf0, 0xf7],
      [0xf8, 0xfb],
      [0xfc, 0xfd],
    ] as const
  ).map(([from, to]) => [false, Buffer.from(range(from, to).flatMap((byte) => [byte, 0x20]))] as const),
  all(
    false,
    'c0',
    'e080',
    'f08080',
    'f8808080',
    'fc80808080',
    'df',
    'efbf',
    'f7bfbf',
    'fbbfbfbf',
    'fdbfbfbfbf',
  ),
  all(false, 'c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf'),
  all(false, 'fe', 'ff', 'fefeffff'),
  all(false, 'c0af', 'e080af', 'f08080af', 'f8808080af', 'fc80808080af'),
  all(false, 'c1bf', 'e09fbf', 'f08fbfbf', 'f887bfbfbf', 'fc83bfbfbfbf'),
  all(false, 'c080', 'e08080', 'f0808080', 'f880808080', 'fc8080808080'),
  all(false, 'eda080', 'edadbf', 'edae80', 'edafbf', 'edb080', 'edbe80', 'edbfbf'),
  all(
    false,
    'eda080edb080',
    'eda080edbfbf',
    'edadbfedb080',
    'edadbfedbfbf',
    'edae80edb080',
    'edae80edbfbf',
    'edafbfedb080',
    'edafbfedbfbf',
  ),
  all(
    true,
    'efbfbe',
    'efbfbf',
    ...['f0', 'f1', 'f2', 'f3', 'f4']
      .flatMap((lead) => ['8f', '9f', 'af', 'bf'].map((next) => lead + next))
      .filter((it) => it !== 'f08f' && !(it.startsWith('f4') && it !== 'f48f'))
      .flatMap((it) => [`${it}bfbe`, `${it}bfbf`]),
  ),
  all(true, 'efbfb9', 'efbfba', 'efbfbb', 'efbfbc', 'efbfbd', 'efbfbe', 'efbfbf'),
];

function all(isValid: boolean, ...hex: string[]): (readonly [boolean, Buffer])[] {
  return hex.map((it) => [isValid, bytes(it)] as const);
}

/** From the first to just before the last. */
function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

const utf8Sequences = sequences.flatMap((section, at) =>
  numbered(
    `6.${5 + at}`,
    section.map(([isValid, payload]) => (isValid ? echo(payload) : invalid([t(payload)]))),
  ),
);

// 7: closing

const code = (value: number, reason: Buffer | string = '') => {
  const number = Buffer.alloc(2);
  number.writeUInt16BE(value);
  return frame({ opcode: close, payload: Buffer.concat([number, Buffer.from(reason)]) });
};
const closesWith = (expected: number, ...sends: Buffer[]): Omit<Case, 'id'> => ({
  sends,
  expected: { closes: [expected] },
});
const validCodes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
const invalidCodes = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
const closing = [
  ...numbered('7.1', [
    { sends: [t(hello)], expected: { echoes: [hello] } },
    closesWith(1000, code(1000), code(1000)),
    closesWith(1000, code(1000), p()),
    closesWith(1000, code(1000), t(hello)),
    closesWith(1000, t(one, false), code(1000), c(two)),
    closesWith(1000, t('BAsd7&jh23'.repeat(26_215)), t(hello), code(1000), p()),
  ]),
  ...numbered('7.3', [
    closesWith(1005, frame({ opcode: close })),
    closesWith(1002, frame({ opcode: close, payload: 'a' })),
    closesWith(1000, code(1000)),
    closesWith(1000, code(1000, 'Hello World!')),
    closesWith(1000, code(1000, '*'.repeat(123))),
    closesWith(1002, code(1000, '*'.repeat(124))),
  ]),
  ...numbered('7.5', [closesWith(1007, code(1000, bad))]),
  ...numbered(
    '7.7',
    validCodes.map((it) => closesWith(it, code(it))),
  ),
  ...numbered(
    '7.9',
    invalidCodes.map((it) => closesWith(1002, code(it))),
  ),
  ...numbered('7.13', [closesWith(1002, code(5000)), closesWith(1002, code(65_535))]),
];

// 9: limits. 10: automatic fragmentation.

const KIB = 1024;
const MIB = 1024 * KIB;
const limits = [
  ...numbered(
    '9.1',
    [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB].map((size) => echo('*'.repeat(size))),
  ),
  ...numbered(
    '9.2',
    [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB].map((size) =>
      refusesBinary(frame({ opcode: binary, payload: Buffer.alloc(size, 0xfe) })),
    ),
  ),
  ...numbered(
    '9.3',
    [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB].map((each) =>
      echo('*'.repeat(4 * MIB), together(...fragments(text, '*'.repeat(4 * MIB), each))),
    ),
  ),
  ...numbered(
    '9.4',
    [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB].map((each) =>
      refusesBinary(...together(...fragments(binary, Buffer.alloc(4 * MIB, 0xfe), each))),
    ),
  ),
  ...numbered(
    '9.5',
    [64, 128, 256, 512, 1024, 2048].map((each) => echo('*'.repeat(MIB), chop(t('*'.repeat(MIB)), each))),
  ),
  ...numbered(
    '9.6',
    [64, 128, 256, 512, 1024, 2048].map((each) =>
      refusesBinary(...chop(frame({ opcode: binary, payload: Buffer.alloc(MIB, 0xfe) }), each)),
    ),
  ),
  ...numbered('10.1', [echo('*'.repeat(65_536), together(...fragments(text, '*'.repeat(65_536), 1300)))]),
];

/** Cases that send bytes and look at what comes back. Round trips (9.7, 9.8) and compression (12, 13) are played by
 * conformance.test.ts itself. Section 8 and 11 have no cases in the published list. */
export const cases: readonly Case[] = [
  ...framing,
  ...control,
  ...reservedBits,
  ...unknownOpcodes,
  ...fragmentation,
  ...utf8,
  ...utf8Sequences,
  ...closing,
  ...limits,
];
