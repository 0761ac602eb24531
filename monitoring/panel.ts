// A panel: what one picture of a dashboard shows, as plain data. Grafana's JSON, the test that runs every expression
// and the pictures in the docs are made of it.

/** One query of a panel. */
export interface Query {
  readonly expr: string;
  /** The name of a line, with `{{label}}` for labels. */
  readonly legend: string;
  /** Whether examples of single messages are shown on top, each with its trace. */
  readonly exemplars?: true;
}

/** How values are written. */
export type Unit = 'short' | 's' | 'bytes' | 'percentunit' | 'reqps' | 'Bps' | 'none';

export interface Panel {
  readonly title: string;
  /** What good looks like, in a sentence or two. */
  readonly description: string;
  /** `lines` over time; one `number`; `states` of each pod over time; `heat`: how many values fell into each bucket. */
  readonly kind: 'lines' | 'number' | 'states' | 'heat';
  readonly unit: Unit;
  readonly queries: readonly Query[];
  /** Width in columns of 24. */
  readonly width: number;
  /** Lines that add up. */
  readonly stacked?: true;
  /** From this value on it is bad, or below it. */
  readonly bad?: { readonly above: number } | { readonly below: number };
  /** The alert that watches the same. Its runbook is linked. */
  readonly alert?: string;
}

export interface Row {
  readonly title: string;
  readonly panels: readonly Panel[];
}

export interface Dashboard {
  /** Also the name of its file. */
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly rows: readonly Row[];
}

/** What selects the pods that the dashboard's variables name. */
export const PODS = 'namespace=~"$namespace",pod=~"$pod"';

/** What selects the operator, which is a pod of its own. */
export const OPERATOR = 'namespace=~"$namespace"';

/** The window of rates: Grafana makes it at least four scrapes long. */
export const WINDOW = '$__rate_interval';

/** The sum of a counter's rates, by these labels. */
export function rate(metric: string, by: readonly string[] = [], labels = ''): string {
  return `${sumBy(by)} (rate(tidegate_${metric}{${PODS}${labels && `,${labels}`}}[${WINDOW}]))`;
}

/** The rates of a counter by a label, of the values that occur, and all together, which is 0 where none does. */
export function ratesThatOccur(metric: string, by: string): string {
  return `${rate(metric, [by])} > 0 or label_replace(${rate(metric)}, "${by}", "all", "", "")`;
}

/** The sum of a gauge over pods, by these labels. */
export function total(metric: string, by: readonly string[] = []): string {
  return `${sumBy(by)} (tidegate_${metric}{${PODS}})`;
}

/** A quantile of a histogram; 0 where nothing was observed. */
export function quantile(share: number, metric: string, by: readonly string[] = []): string {
  const of = `histogram_quantile(${share}, ${rate(`${metric}_bucket`, ['le', ...by])})`;
  // Of nothing the quantile is no number, and a panel would be empty.
  return `(${of} >= 0) or 0 * ${rate(`${metric}_count`, by)}`;
}

function sumBy(by: readonly string[]): string {
  return by.length === 0 ? 'sum' : `sum by (${by.join(', ')})`;
}
