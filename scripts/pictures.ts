// Takes docs/images/dashboards/*.png: the dashboards over a few eventful minutes of real gateways, each panel by its own
// query to a real Prometheus. Not a part of any check, as no two are the same: node scripts/pictures.ts [MINUTES]

import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chartTuning, rulesFile, testPlace } from '../monitoring/chart.ts';
import { dashboards } from '../monitoring/dashboards/all.ts';
import { filled } from '../monitoring/expressions.ts';
import { startLoad } from '../monitoring/load.ts';
import type { Panel } from '../monitoring/panel.ts';
import { drawDashboard, type NamedLine, PAGE_WIDTH, type PanelData } from '../monitoring/picture.ts';
import { ruleGroups } from '../monitoring/rules.ts';
import { launchBrowser } from '../test/browser.ts';
import { startGateway } from '../test/gateway.ts';
import { startPrometheus } from '../test/prometheus.ts';
import { RawPeer } from '../test/raw.ts';
import { TestClient } from '../test/websocket.ts';

const folder = fileURLToPath(new URL('../docs/images/dashboards/', import.meta.url));
const minutes = Number(process.argv[2] ?? 5);
const STEP_SECONDS = 2;

/** As Grafana makes it: at least four scrapes. */
const WINDOW = '8s';

const load = await startLoad(
  2,
  90,
  {
    DRAIN_SECONDS: '25',
    MAX_CONNECTIONS: '150',
    MAX_BACKLOG_BYTES: '65536',
    API_KEYS_FILE: '',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
    OTEL_TRACES_SAMPLER_ARG: '0.02',
  },
  startGateway,
);
const prometheus = await startPrometheus(rulesFile(ruleGroups(chartTuning(), testPlace)));
prometheus.scrape(load.targets());
const startedAt = Date.now();

/** What happens, and when, as shares of the time. */
const events: [number, string, () => Promise<unknown>][] = [
  [0.12, 'more clients come than there is room for', () => load.addClients(125)],
  [0.25, 'a pod is added', addPod],
  [0.32, 'full pods are asked to shed', shed],
  [0.55, 'Redis is away', breakRedis],
  [0.68, 'somebody does not read', readNothing],
  [0.78, 'a pod drains', () => load.stopGateway(load.gateways[0] ?? fail())],
];

for (const [share, what, happen] of events) {
  await sleep(Math.max(0, startedAt + share * minutes * 60_000 - Date.now()));
  console.log(what);
  void happen().catch((error: unknown) => console.error(what, error));
}
await sleep(Math.max(0, startedAt + minutes * 60_000 - Date.now()));

const to = Date.now() / 1000;
const span = { from: to - minutes * 60, to };
const browser = await launchBrowser();
mkdirSync(folder, { recursive: true });
const page = await browser.newPage({ viewport: { width: PAGE_WIDTH, height: 900 } });
for (const dashboard of dashboards) {
  const data = new Map<Panel, PanelData>();
  for (const panel of dashboard.rows.flatMap((row) => row.panels)) data.set(panel, await dataOf(panel));
  await page.setContent(drawDashboard(dashboard, data, span));
  await page.screenshot({ path: `${folder}${dashboard.uid}.png`, fullPage: true });
  console.log(`written: docs/images/dashboards/${dashboard.uid}.png`);
}
await browser.close();
await prometheus.stop();
await load.stop();
process.exit();

async function dataOf({ queries }: Panel): Promise<PanelData> {
  const results = await Promise.all(
    queries.map(async ({ expr, legend, exemplars }) => {
      const asked = filled(expr, WINDOW);
      const lines = await prometheus.queryRange(asked, minutes * 60, STEP_SECONDS);
      return {
        lines: lines.map(
          (line): NamedLine => ({
            ...line,
            name: legend.replace(/\{\{(\w+)\}\}/g, (_, label: string) => line.metric[label] ?? ''),
          }),
        ),
        exemplars: exemplars ? await prometheus.exemplars(asked) : [],
      };
    }),
  );
  return {
    lines: results.flatMap(({ lines }) => lines),
    exemplars: results.flatMap(({ exemplars }) => exemplars),
  };
}

async function addPod(): Promise<void> {
  await load.addGateway();
  prometheus.scrape(load.targets());
}

/** As the operator does it, until the pods are even. */
async function shed(): Promise<void> {
  for (const gateway of load.gateways.slice(0, 2)) await load.setCeiling(gateway, 105);
}

async function breakRedis(): Promise<void> {
  load.redis.pause();
  await sleep(7000);
  load.redis.resume();
}

async function readNothing(): Promise<void> {
  const gateway = load.gateways[1] ?? fail();
  const peers = await Promise.all(Array.from({ length: 5 }, () => RawPeer.upgrade(gateway.ports.ws, '/ws')));
  for (const peer of peers) peer.stopReading();
  const speaker = await TestClient.v1(`${gateway.url}/ws/loud`);
  for (let at = 0; at < 400; at += 1) {
    speaker.send({ type: 'publish', channel: 'ws_broadcast', data: 'x'.repeat(20_000) });
    await sleep(25);
  }
  speaker.ws.terminate();
}

function fail(): never {
  throw new Error('there is no such gateway');
}
