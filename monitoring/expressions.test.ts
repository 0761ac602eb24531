import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
import { dashboards } from './dashboards/all.ts';
import { allExpressions, filled } from './expressions.ts';
import { type Load, startLoad } from './load.ts';
import { ruleGroups } from './rules.ts';

// A gateway that watches a file says whether it can use it.
const folder = mkdtempSync(join(tmpdir(), 'tidegate-expressions-'));
const keys = join(folder, 'keys');
writeFileSync(keys, 'key-of-the-expressions-01\n');
afterAll(() => rmSync(folder, { recursive: true }));

describe(`in a real Prometheus that scrapes real gateways under load${withPrometheus}`, () => {
  let load: Load;
  let prometheus: TestPrometheus;

  beforeAll(async () => {
    if (!hasPrometheus) return;
    [load, prometheus] = await Promise.all([
      // Every message is traced. Nobody takes the traces, and the exemplars are there all the same.
      startLoad(2, 10, {
        API_KEYS_FILE: keys,
        OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
        OTEL_TRACES_SAMPLER: 'always_on',
      }),
      startPrometheus(rulesFile(ruleGroups(chartTuning(), testPlace))),
    ]);
    prometheus.scrape(load.targets());
  });

  afterAll(async () => {
    await prometheus?.stop();
    await load?.stop();
  });

  it.skipIf(!hasPrometheus)('every panel and every rule has an expression that gives something', async () => {
    const expressions = allExpressions('20s');
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
      { what: 'every panel to show something', timeoutMs: 100_000, pollIntervalMs: 1000 },
    ).catch((error: unknown) => {
      if (empty.length === 0) throw error;
    });
    expect(empty).toEqual([]);
  });

  it.skipIf(!hasPrometheus)(
    'every selector in them finds series, also where an alert is silent',
    async () => {
      const selectors = new Set(allExpressions('20s').flatMap(({ expr }) => selectorsOf(expr)));
      expect(selectors.size).toBeGreaterThan(60);
      let lost: string[] = [];
      // What a record reads is there before the record is: that takes another evaluation.
      await until(
        async () => {
          lost = [];
          for (const selector of selectors) {
            if ((await prometheus.query(`count(${selector})`)).length === 0) lost.push(selector);
          }
          return lost.length === 0;
        },
        { what: 'every selector to find series', pollIntervalMs: 1000 },
      ).catch((error: unknown) => {
        if (lost.length === 0) throw error;
      });
      expect(lost).toEqual([]);
    },
  );

  it.skipIf(!hasPrometheus)('exemplars lead from the latency to traces', async () => {
    const panels = dashboards.flatMap(({ rows }) => rows.flatMap((row) => row.panels));
    const queries = panels.flatMap((panel) => panel.queries).filter((query) => query.exemplars);
    expect(queries.length).toBeGreaterThan(1);
    for (const { expr } of queries) {
      const examples = await until(
        async () => {
          const found = await prometheus.exemplars(filled(expr, '20s'));
          return found.length > 0 && found;
        },
        { what: 'exemplars', pollIntervalMs: 500 },
      );
      for (const { traceId } of examples) expect(traceId).toMatch(/^[0-9a-f]{32}$/);
    }
  });

  it.skipIf(!hasPrometheus)('no rule fails, and none fires while all is well', async () => {
    expect(await prometheus.ruleErrors()).toEqual([]);
    // On a machine that starves, messages are late: no fault of the rules.
    const late = ['TidegateDeliveryLatencyBudgetBurn', 'TidegateEventLoopLag'];
    expect((await prometheus.firing()).filter((alert) => !late.includes(alert))).toEqual([]);
  });
});
