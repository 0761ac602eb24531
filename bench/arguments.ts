// Arguments: what the benchmark can be asked for.

import { parseArgs } from 'node:util';
import { type Measurement, measurements } from './measure.ts';
import { type ServerId, serverIds, tracedIds } from './servers.ts';

const USAGE = `Usage: npm run bench -- [options]

  --rounds N        interleaved rounds, of which the medians are shown (3; 1 with --quick)
  --quick           one round with short windows, without c-write, in less than four minutes
  --only ROW,...    ${measurements.map(({ id }) => id).join(', ')}
  --servers NAME,...  ${serverIds.join(', ')}
  --traces          what traces cost: the same gateway without them, and with 0, 1 and 100 % traced
  --patient         wait until nobody else uses the machine, and measure again what was disturbed
  --json FILE       keep every raw value

  BENCH_GATEWAY     a bundled gateway to measure instead of src/gateway.ts; npm run bundle makes dist/gateway.js
  LIMIT_DIR         the folder of wsload.c and wslimit.c (../shared/limit)
`;

/** Where traces could show: few large fan-outs, many small ones, and the start. */
const TRACED_ROWS = 'outstanding-4,outstanding-16,outstanding-64,cost,paced-100k,start,rooms,publishers';

export interface Arguments {
  readonly rounds: number;
  readonly quick: boolean;
  readonly rows: readonly Measurement[];
  readonly servers: readonly ServerId[];
  readonly traces: boolean;
  readonly patient: boolean;
  readonly json: string | undefined;
}

/** Reads the command line. Ends the process where it asks for help or for what there is not. */
export function readArguments(): Arguments {
  try {
    const { values } = parseArgs({
      options: {
        rounds: { type: 'string' },
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        servers: { type: 'string' },
        traces: { type: 'boolean', default: false },
        patient: { type: 'boolean', default: false },
        json: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds must be a whole number from 1');
    const all = values.traces ? tracedIds : serverIds;
    const defaults = all.filter((id) => !values.quick || id !== 'c-write');
    const rows = values.only ?? (values.traces ? TRACED_ROWS : undefined);
    return {
      rounds,
      quick: values.quick,
      rows: pick('--only', rows, measurements, ({ id }) => id),
      servers: values.servers === undefined ? defaults : pick('--servers', values.servers, all, (id) => id),
      traces: values.traces,
      patient: values.patient,
      json: values.json,
    };
  } catch (error) {
    return fail(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  }
}

/** The named ones in their own order, or all. @throws {Error} for a name that there is not. */
function pick<T>(
  option: string,
  list: string | undefined,
  all: readonly T[],
  name: (item: T) => string,
): readonly T[] {
  if (list === undefined) return all;
  const names = list.split(',');
  const unknown = names.filter((given) => !all.some((item) => name(item) === given));
  if (unknown.length > 0) throw new Error(`${option}: there is no ${unknown.join(', ')}`);
  return all.filter((item) => names.includes(name(item)));
}

/** Ends the process with a message. */
export function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
