// Grafana: a dashboard as its JSON.

import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import * as common from '@grafana/grafana-foundation-sdk/common';
import {
  BigValueColorMode,
  BigValueGraphMode,
  GraphThresholdsStyleMode,
  LegendDisplayMode,
  LegendPlacement,
  ScaleDistribution,
  SortOrder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
} from '@grafana/grafana-foundation-sdk/common';
import {
  DashboardBuilder,
  DashboardCursorSync,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  type Dashboard as GrafanaDashboard,
  type Panel as GrafanaPanel,
  MappingType,
  QueryVariableBuilder,
  RowBuilder,
  type Threshold,
  ThresholdsConfigBuilder,
  ThresholdsMode,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import type { Dashboard, Panel, Query } from './panel.ts';

/** Where panels and dashboards lead; the chart's value `monitoring.rules.runbookUrl` takes its place. */
export const RUNBOOKS = 'https://github.com/tidegate/tidegate/blob/main/docs/runbooks';

/** Every dashboard has it, so that each links to the others. */
const TAG = 'tidegate';

/** Grafana puts the variable in. */
const datasource = { type: 'prometheus', uid: '$datasource' };

const HEIGHTS = { number: 4, lines: 8, states: 8, heat: 8 } as const;

/** The JSON that Grafana loads. */
export function grafanaDashboard(dashboard: Dashboard): GrafanaDashboard {
  const builder = new DashboardBuilder(dashboard.title)
    .uid(dashboard.uid)
    .description(dashboard.description)
    .tags([TAG])
    .tooltip(DashboardCursorSync.Crosshair)
    .time({ from: 'now-1h', to: 'now' })
    .refresh('30s')
    .timezone('browser')
    .readonly()
    .withVariable(new DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'))
    .withVariable(variable('namespace', 'Namespace', 'label_values(tidegate_ready, namespace)'))
    .withVariable(variable('pod', 'Pod', 'label_values(tidegate_ready{namespace=~"$namespace"}, pod)'))
    .link(
      new DashboardLinkBuilder('Tidegate')
        .type(DashboardLinkType.Dashboards)
        .tags([TAG])
        .keepTime(true)
        .includeVars(true),
    )
    .link(
      new DashboardLinkBuilder('Runbooks')
        .type(DashboardLinkType.Link)
        .icon('doc')
        .url(RUNBOOKS)
        .targetBlank(true),
    );
  let id = 0;
  for (const row of dashboard.rows) {
    id += 1;
    builder.withRow(new RowBuilder(row.title).id(id));
    for (const panel of row.panels) {
      id += 1;
      builder.withPanel(grafanaPanel(panel, id));
    }
  }
  return builder.build();
}

function variable(name: string, label: string, query: string): QueryVariableBuilder {
  return new QueryVariableBuilder(name)
    .label(label)
    .datasource(datasource)
    .query({ query, refId: name })
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.*')
    .current({ selected: true, text: 'All', value: '$__all' });
}

function grafanaPanel(panel: Panel, id: number): Builder<GrafanaPanel> {
  const builder = visualisation(panel)
    .id(id)
    .title(panel.title)
    .description(panel.description)
    .datasource(datasource)
    .span(panel.width)
    .height(HEIGHTS[panel.kind])
    .unit(panel.unit)
    .targets(panel.queries.map((query, at) => target(query, at, panel.kind)));
  if (panel.alert !== undefined) {
    const url = `${RUNBOOKS}/${panel.alert}.md`;
    builder.links([
      new DashboardLinkBuilder(`Runbook: ${panel.alert}`)
        .type(DashboardLinkType.Link)
        .url(url)
        .targetBlank(true),
    ]);
  }
  return builder;
}

function target({ expr, legend, exemplars }: Query, at: number, kind: Panel['kind']): DataqueryBuilder {
  const query = new DataqueryBuilder()
    .datasource(datasource)
    .refId(String.fromCharCode('A'.charCodeAt(0) + at))
    .expr(expr)
    .legendFormat(legend)
    .exemplar(exemplars === true);
  if (kind === 'heat') query.format(PromQueryFormat.Heatmap);
  return kind === 'number' ? query.instant() : query.range();
}

function visualisation(panel: Panel) {
  switch (panel.kind) {
    case 'lines':
      return lines(panel);
    case 'number':
      return new stat.PanelBuilder()
        .thresholds(thresholds(panel))
        .colorMode(BigValueColorMode.Value)
        .graphMode(BigValueGraphMode.None)
        .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']));
    case 'states':
      return new statetimeline.PanelBuilder()
        .mergeValues(true)
        .showValue(VisibilityMode.Never)
        .fillOpacity(80)
        .mappings([
          {
            type: MappingType.ValueToText,
            options: {
              '0': { text: 'no', color: 'red', index: 0 },
              '1': { text: 'yes', color: 'green', index: 1 },
            },
          },
        ]);
    case 'heat':
      return new heatmap.PanelBuilder()
        .calculate(false)
        .yAxis(new heatmap.YAxisConfigBuilder().unit(panel.unit))
        .color(new heatmap.HeatmapColorOptionsBuilder().scheme('Blues').steps(64))
        .exemplarsColor('orange');
  }
}

function lines(panel: Panel): timeseries.PanelBuilder {
  const builder = new timeseries.PanelBuilder()
    .lineWidth(1)
    .fillOpacity(panel.stacked ? 30 : 0)
    .showPoints(VisibilityMode.Never)
    .min(0)
    .scaleDistribution(new common.ScaleDistributionConfigBuilder().type(ScaleDistribution.Linear))
    .legend(
      new common.VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true),
    )
    .tooltip(new common.VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending));
  if (panel.stacked) builder.stacking(new common.StackingConfigBuilder().mode(StackingMode.Normal));
  if (panel.bad !== undefined) {
    builder
      .thresholds(thresholds(panel))
      .thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(GraphThresholdsStyleMode.Dashed));
  }
  return builder;
}

function thresholds({ bad }: Panel): ThresholdsConfigBuilder {
  const steps: Threshold[] =
    bad === undefined
      ? [{ value: null, color: 'text' }]
      : 'above' in bad
        ? [
            { value: null, color: 'green' },
            { value: bad.above, color: 'red' },
          ]
        : [
            { value: null, color: 'red' },
            { value: bad.below, color: 'green' },
          ];
  return new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps);
}
