// Known advisories for what the lockfile names. Ends with 0 where the registry knows none, with 1 where it knows some, and
// with 75 where it was not asked or has not answered: what is not known is never taken for good.

import { npm } from './npm.ts';

const NOT_ANSWERED = 75; // EX_TEMPFAIL: try again later, or elsewhere

interface Report {
  readonly metadata?: { readonly vulnerabilities?: { readonly total?: number } };
  readonly vulnerabilities?: Readonly<Record<string, { readonly severity: string; readonly range: string }>>;
  readonly message?: string;
}

/** What npm has printed, if that is a report. */
function reportOf(stdout: string): Report {
  try {
    return JSON.parse(stdout) as Report;
  } catch {
    return {};
  }
}

const { stdout, stderr } = npm('audit', '--json', '--package-lock-only');
const { metadata, vulnerabilities = {}, message } = reportOf(stdout);
const total = metadata?.vulnerabilities?.total;
if (total === undefined) {
  const why = message ?? stderr.trim().split('\n').at(-1) ?? 'npm printed nothing';
  console.error(`NOT CHECKED: the registry has not answered about advisories (${why}).`);
  process.exitCode = NOT_ANSWERED;
} else if (total > 0) {
  for (const [name, { severity, range }] of Object.entries(vulnerabilities))
    console.error(`${name} ${range}: ${severity}`);
  console.error(
    `${total} known advisories: take a version without them, or say in SECURITY.md why they do not apply`,
  );
  process.exitCode = 1;
} else {
  console.log('no known advisories');
}
