// Label selectors: as a workload has them, as a query has them, and whether labels match.

type Labels = Readonly<Record<string, string>>;

/** What a workload selects its pods by. */
export interface LabelSelector {
  readonly matchLabels?: Labels;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
    readonly values?: readonly string[];
  }[];
}

/** The selector as a query. */
export function selectorText({ matchLabels = {}, matchExpressions = [] }: LabelSelector): string {
  const terms = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`);
  for (const { key, operator, values = [] } of matchExpressions) {
    if (operator === 'Exists') terms.push(key);
    else if (operator === 'DoesNotExist') terms.push(`!${key}`);
    else terms.push(`${key} ${operator === 'In' ? 'in' : 'notin'} (${values.join(',')})`);
  }
  return terms.join(',');
}

const KEY = '[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?';
const VALUE = '[A-Za-z0-9._-]*';
const setTerm = new RegExp(`^(${KEY})\\s+(in|notin)\\s*\\(([^()]*)\\)$`);
const equalTerm = new RegExp(`^(${KEY})\\s*(==|=|!=)\\s*(${VALUE})$`);
const keyTerm = new RegExp(`^(!?)\\s*(${KEY})$`);

/** The query as a test of labels; undefined where it is no selector. As in Kubernetes, `!=` and `notin` match what
 * lacks the label. */
export function parseSelector(text: string): ((labels: Labels) => boolean) | undefined {
  const tests: ((labels: Labels) => boolean)[] = [];
  for (const term of text.split(/,(?![^(]*\))/).map((it) => it.trim())) {
    if (term === '' && text.trim() === '') continue;
    const test = parseTerm(term);
    if (test === undefined) return undefined;
    tests.push(test);
  }
  return (labels) => tests.every((test) => test(labels));
}

function parseTerm(term: string): ((labels: Labels) => boolean) | undefined {
  const labelOf = (labels: Labels, key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined);
  const set = setTerm.exec(term);
  if (set !== null) {
    const [, key = '', operator, list = ''] = set;
    const values = new Set(list.split(',').map((value) => value.trim()));
    return (labels) => {
      const value = labelOf(labels, key);
      return operator === 'in'
        ? value !== undefined && values.has(value)
        : value === undefined || !values.has(value);
    };
  }
  const equal = equalTerm.exec(term);
  if (equal !== null) {
    const [, key = '', operator, wanted] = equal;
    return (labels) => (labelOf(labels, key) === wanted) === (operator !== '!=');
  }
  const only = keyTerm.exec(term);
  if (only === null) return undefined;
  const [, not, key = ''] = only;
  return (labels) => (labelOf(labels, key) === undefined) === (not === '!');
}
