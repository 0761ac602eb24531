import { describe, expect, it } from 'vitest';
import { dashboards } from './dashboards/all.ts';
import { grafanaDashboard, RUNBOOKS } from './grafana.ts';

interface GridPos {
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

/** What is looked at here, of what Grafana knows. */
interface GrafanaPanel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description: string;
  readonly gridPos: GridPos;
  readonly datasource: { readonly uid: string };
  readonly links?: readonly { readonly url: string }[];
  readonly targets: readonly { readonly refId: string; readonly expr: string; readonly exemplar: boolean }[];
}

describe.each(dashboards)('the dashboard $title', (dashboard) => {
  const json = JSON.parse(JSON.stringify(grafanaDashboard(dashboard))) as {
    uid: string;
    panels: GrafanaPanel[];
    templating: { list: { name: string; type: string; multi?: boolean; includeAll?: boolean }[] };
    links: { url?: string; type: string }[];
  };
  const panels = json.panels.filter(({ type }) => type !== 'row');

  it('has a place of its own for every panel', () => {
    const taken = new Set<string>();
    for (const { title, gridPos } of json.panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(taken.has(`${x},${y}`), `${title} at ${x},${y}`).toBe(false);
          taken.add(`${x},${y}`);
        }
      }
    }
    expect(new Set(json.panels.map(({ id }) => id)).size).toBe(json.panels.length);
  });

  it('says of every panel what good looks like', () => {
    for (const { title, description } of panels) expect(description, title).toMatch(/Good: .+\./);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
  });

  it('asks for the pods that its variables name, in a data source that can be chosen', () => {
    const variables = json.templating.list.map(({ name, type }) => `${name}: ${type}`);
    expect(variables).toEqual(['datasource: datasource', 'namespace: query', 'pod: query']);
    for (const { title, datasource, targets } of panels) {
      expect(datasource.uid, title).toBe('$datasource');
      expect(targets.length, title).toBeGreaterThan(0);
      for (const { expr } of targets) expect(expr, title).toContain('namespace=~"$namespace"');
      expect(new Set(targets.map(({ refId }) => refId)).size).toBe(targets.length);
    }
  });

  it('leads to the runbooks', () => {
    expect(json.links.map(({ url }) => url)).toContain(RUNBOOKS);
    const urls = panels.flatMap(({ links = [] }) => links.map(({ url }) => url));
    expect(urls.length).toBeGreaterThan(panels.length / 2);
    for (const url of urls) expect(url).toMatch(/^https:\/\/.*\/docs\/runbooks\/Tidegate[A-Za-z]+\.md$/);
  });
});
