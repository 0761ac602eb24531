// `npm run hpa:simulate`: replays a history of connections against settings of the autoscaler and the operator, prints
// what came of it and draws it, so that somebody can tune before they touch production.

import { writeFileSync } from 'node:fs';
import { draw } from './picture.ts';
import { simulate } from './run.ts';
import { Fault, readWish, usage } from './settings.ts';
import { changesOf, tableOf } from './table.ts';

/** As many moments as the picture is wide. */
const MOMENTS = 1100;

/** What the table's first surprise is about. */
const EVENNESS_NOTE =
  'A pod that is removed makes its clients reconnect. Where pods are even, each has its fair share of them; without the\n' +
  'operator some are nearly empty, and others too full. docs/autoscaling.md says what that costs.';

try {
  // npm runs scripts in the project's folder, and remembers where it was called.
  const wish = readWish(process.argv.slice(2), process.env.INIT_CWD);
  if (wish === 'help') console.log(usage);
  else {
    const { settings, picture } = wish;
    const everySeconds = Math.max(1, Math.floor(settings.history.seconds / MOMENTS));
    const recording = simulate(settings, everySeconds);
    const without =
      settings.policy === undefined ? undefined : simulate({ ...settings, policy: undefined }, everySeconds);
    writeFileSync(picture, draw(settings, recording, without));
    console.log(tableOf(settings, recording, without));
    if (without !== undefined) console.log(`\n${EVENNESS_NOTE}`);
    console.log(`\n${changesOf(recording)}\n\n${picture}`);
  }
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  console.error(`${error.message}\n\nSee npm run hpa:simulate -- --help`);
  process.exitCode = 2;
}
