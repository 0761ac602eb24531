import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  hasPrometheus,
  selectorsOf,
  startPrometheus,
  type TestPrometheus,
  withPrometheus,
} from '../test/prometheus.ts';
import { until } from '../test/until.ts';
import { chartTuning, rulesFile, testPlace } from './chart.ts';
import { allExpressions } from './expressions.ts';
import { type Load, startLoad } from './load.ts';
import { ruleGroups } from './rules.ts';

describe(`in a real Prometheus that scrapes real gateways under load${withPrometheus}`, () => {
  let load: Load;
  let prometheus: TestPrometheus;

  beforeAll(async () => {
    if (!hasPrometheus) return;
    [load, prometheus] = await Promise.all([
      startLoad(2, 10),
      startPrometheus(rulesFile(ruleGroups(chartTuning(), testPlace))),
    ]);
    prometheus.scrape(load.targets());
  });

  afterAll(async () => {
    await prometheus?.stop();
    await load?.stop();
  });

  it.skipIf(!hasPrometheus)('every panel and every rule has an expression that gives something', async () => {
    const expressions = allExpressions('10s');
    expect(expressions.length).toBeGreaterThan(100);
    let empty: string[] = [];
    // Rates need a few scrapes, and records a few evaluations.
    await until(
      async () => {
        const results = await Promise.all(
          expressions.map(async ({ where, expr, isAlert }) => {
            const samples = await prometheus.query(expr);
            const gives = samples.length > 0 && samples.every(({ value }) => !Number.isNaN(value));
            return isAlert || gives ? [] : [`${where}: ${expr}`];
          }),
        );
        empty = results.flat();
        return empty.length === 0;
      },
      { what: 'every panel to show something', timeoutMs: 60_000, pollIntervalMs: 1000 },
    ).catch((error: unknown) => {
      if (empty.length === 0) throw error;
    });
    expect(empty).toEqual([]);
  });

  it.skipIf(!hasPrometheus)(
    'every selector in them finds series, also where an alert is silent',
    async () => {
      const selectors = new Set(allExpressions('10s').flatMap(({ expr }) => selectorsOf(expr)));
      expect(selectors.size).toBeGreaterThan(60);
      const lost: string[] = [];
      for (const selector of selectors) {
        if ((await prometheus.query(`count(${selector})`)).length === 0) lost.push(selector);
      }
      expect(lost).toEqual([]);
    },
  );

  it.skipIf(!hasPrometheus)('no rule fails, and none fires while all is well', async () => {
    expect(await prometheus.ruleErrors()).toEqual([]);
    expect(await prometheus.firing()).toEqual([]);
  });
});
