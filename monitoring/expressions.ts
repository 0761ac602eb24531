// Every expression that anybody is shown or woken by, as Prometheus is asked for it.

import { chartTuning, testPlace } from './chart.ts';
import { dashboards } from './dashboards/all.ts';
import { WINDOW } from './panel.ts';
import { ruleGroups } from './rules.ts';

export interface Expression {
  /** Where it is. */
  readonly where: string;
  readonly expr: string;
  /** An alert's gives nothing as long as all is well; all others always give something. */
  readonly isAlert: boolean;
}

/** A panel's expression with Grafana's variables filled in: every pod, and this window. */
export function filled(expr: string, window: string): string {
  return expr.replaceAll('$namespace', '.*').replaceAll('$pod', '.*').replaceAll(WINDOW, window);
}

/** Of all panels and rules. `window` is what Grafana would take for rates. */
export function allExpressions(window: string): Expression[] {
  const panels = dashboards.flatMap(({ title, rows }) =>
    rows.flatMap((row) =>
      row.panels.flatMap((panel) =>
        panel.queries.map(({ expr }) => ({
          where: `${title}: ${panel.title}`,
          expr: filled(expr, window),
          isAlert: false,
        })),
      ),
    ),
  );
  const rules = ruleGroups(chartTuning(), testPlace).flatMap((group) =>
    group.rules.map((rule) =>
      'alert' in rule
        ? { where: `the alert ${rule.alert}`, expr: rule.expr, isAlert: true }
        : { where: `the record ${rule.record}`, expr: rule.expr, isAlert: false },
    ),
  );
  return [...panels, ...rules];
}
