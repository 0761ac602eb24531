import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { Random } from '../test/random.ts';
import { historyFromCsv, historyOf, type ShapeName, shapes } from './history.ts';
import { defaultRules } from './hpa.ts';
import { Operator } from './operator.ts';
import { draw } from './picture.ts';
import { type Recording, simulate } from './run.ts';
import { Fault, readWish, type Settings } from './settings.ts';
import { changesOf, tableOf } from './table.ts';
import { World } from './world.ts';

const folder = mkdtempSync(join(tmpdir(), 'tidegate-simulate-'));
afterAll(() => rmSync(folder, { recursive: true }));

function settingsOf(...args: string[]): Settings {
  const wish = readWish(args);
  if (wish === 'help') throw new Error('settings were asked for');
  return wish.settings;
}

const last = ({ moments }: Recording) => moments.at(-1);
const most = ({ moments }: Recording, field: 'desired' | 'fullest' | 'connected') =>
  Math.max(...moments.map((moment) => moment[field]));

test('pods follow the clients: up at once, and down by one a grace period after the window', () => {
  const recording = simulate(settingsOf('--history', 'spike', '--peak', '60000'), 1);
  expect(most(recording, 'desired')).toBe(6);
  expect(last(recording)).toMatchObject({ desired: 2, connected: 15_000 });
  const downs = recording.moments.filter(
    ({ desired }, index) => desired < (recording.moments[index - 1]?.desired ?? 0),
  );
  expect(downs).toHaveLength(4);
  for (const [index, { second }] of downs.entries()) {
    // 60,000 clients were needed for until 0:32, and ten minutes count.
    expect(second).toBeGreaterThan(42 * 60);
    if (index > 0) expect(second - (downs[index - 1]?.second ?? 0)).toBeGreaterThanOrEqual(60);
  }
});

test('its replicas agree with those of a recorded real autoscaler within one sync period', () => {
  const recorded = changes(recordedMoments('hpa-1.35.csv'));
  expect(recorded.map(({ desired }) => desired)).toEqual([4, 6, 8, 7, 6, 5, 4, 6]);

  const usual = settingsOf();
  const up = { type: 'Pods', value: 2, periodSeconds: 25 } as const;
  const settings: Settings = {
    ...usual,
    history: historyFromCsv('hpa-1.35.csv', readFileSync(recordings('hpa-1.35.csv'), 'utf8')),
    hpa: {
      ...usual.hpa,
      maxReplicas: 8,
      metrics: [{ kind: 'pods', name: 'tidegate_connections', targetMilli: 1_000_000 }],
      behavior: {
        scaleUp: { ...defaultRules.scaleUp, policies: [up, { ...up, type: 'Percent', value: 50 }] },
        scaleDown: {
          ...defaultRules.scaleDown,
          stabilizationWindowSeconds: 110,
          selectPolicy: 'Min',
          policies: [{ type: 'Pods', value: 1, periodSeconds: 50 }],
        },
      },
    },
    metricsSeconds: 1,
    policy: undefined,
    world: { ...usual.world, startSeconds: 12, preStopSeconds: 0, drainSeconds: 0 },
  };
  const simulated = changes(simulate(settings, 1).moments);
  expect(simulated.map(({ desired }) => desired)).toEqual(recorded.map(({ desired }) => desired));
  for (const [index, { second }] of recorded.entries()) {
    expect(Math.abs(second - (simulated[index]?.second ?? 0))).toBeLessThanOrEqual(settings.syncSeconds);
  }
});

test('its replicas agree with those of a cluster where real connections, gateways and operator made the metric', () => {
  const recorded = recordedMoments('cluster-1.35.csv');
  expect(changes(recorded).length).toBeGreaterThan(6);
  const settings = settingsOf(
    ...['--history', recordings('cluster-1.35.csv'), '--values', recordings('cluster-values.yaml')],
    ...['--sync', '2', '--metrics', '5', '--start', '4', '--balancer', 'random'],
  );
  const simulated = simulate(settings, 1).moments;
  // The autoscaler looks every two seconds at what the operator has asked for every five, so that clients who come
  // within seconds may make one step or two.
  const seconds = settings.syncSeconds + settings.metricsSeconds;
  expect(outside(recorded, simulated, seconds)).toEqual([]);
  expect(outside(simulated, recorded, seconds)).toEqual([]);
});

/** The moments at which one wanted fewer or more pods than the other within so many seconds. */
function outside(one: readonly Change[], other: readonly Change[], seconds: number): readonly Change[] {
  return one.filter(({ second, desired }) => {
    const near = other.filter((it) => Math.abs(it.second - second) <= seconds).map((it) => it.desired);
    return desired < Math.min(...near) || desired > Math.max(...near);
  });
}

const recordings = (file: string) => fileURLToPath(new URL(`./recordings/${file}`, import.meta.url));

/** What was wanted at a moment, or from then on. */
interface Change {
  readonly second: number;
  readonly desired: number;
}

/** How many pods a real autoscaler wanted at each second. */
function recordedMoments(file: string): Change[] {
  const lines = readFileSync(recordings(file), 'utf8').split('\n');
  return lines.flatMap((line) => {
    const [second, , desired] = line.split(',').map(Number);
    return /^\d/.test(line) && second !== undefined && desired !== undefined ? [{ second, desired }] : [];
  });
}

/** When the number of pods changed, and to what. */
function changes(moments: readonly Change[]): Change[] {
  return moments.filter(({ desired }, index) => index > 0 && desired !== moments[index - 1]?.desired);
}

test('the operator makes pods even by moving, and without it the new ones stay empty', () => {
  const settings = settingsOf('--history', 'spike');
  const [withIt, without] = [simulate(settings, 10), simulate({ ...settings, policy: undefined }, 10)];
  expect(withIt.secondsSkewed).toBeLessThan(300);
  expect(without.secondsSkewed).toBeGreaterThan(1500);
  expect(last(withIt)?.moved).toBeGreaterThan(10_000);
  expect(last(without)?.moved).toBe(0);
});

test('where the oldest pods are emptiest, deletion costs make them go first, and the default order the others', () => {
  const dropped = (protect: boolean, seed: number) => {
    const world = new World({ balancer: 'least-connections' }, new Random(seed));
    const operator = new Operator(world, { scaleIn: { protect }, rebalance: { suspend: true } });
    const live = (seconds: number) => {
      for (let passed = 0; passed < seconds; passed += 1) {
        world.step();
        operator.step();
      }
    };
    world.scaleTo(2);
    live(300);
    // Clients come when there are two more pods, and the load balancer sends most of them there.
    world.arrive(200);
    world.scaleTo(4);
    live(10);
    for (const pod of world.pods.slice(0, 2)) pod.ready = false;
    world.arrive(1800);
    for (const pod of world.pods.slice(0, 2)) pod.ready = true;
    live(30);
    world.scaleTo(2);
    live(120);
    return world.counts.dropped;
  };
  for (let seed = 1; seed <= 20; seed += 1) {
    expect(dropped(true, seed)).toBe(200);
    expect(dropped(false, seed)).toBeGreaterThan(900);
  }
});

test('clients that find no room try again, and the fullest pod never has more than maxConnections', () => {
  const settings = settingsOf(
    '--history',
    'launch',
    '--peak',
    '9000',
    '--set',
    'maxConnections=1000',
    '--set',
    'autoscaling.connections.target=700',
    '--start',
    '120',
  );
  const recording = simulate(settings, 10);
  expect(most(recording, 'fullest')).toBeLessThanOrEqual(1000);
  expect(last(recording)?.refused).toBeGreaterThan(0);
});

test('a storm brings everybody back, and changes no number of pods by itself', () => {
  const recording = simulate(settingsOf('--history', 'storm'), 1);
  const after = recording.moments.filter(({ second }) => second >= 20 * 60);
  expect(Math.min(...after.map(({ connected }) => connected))).toBeLessThan(25_000);
  expect(last(recording)).toMatchObject({ connected: 40_000, desired: recording.moments[0]?.desired });
});

test('the same seed gives the same simulation, and another one another', () => {
  const run = (seed: string) =>
    simulate(settingsOf('--history', 'storm', '--balancer', 'random', '--seed', seed), 60);
  expect(run('7')).toEqual(run('7'));
  expect(run('7')).not.toEqual(run('8'));
});

test.each(Object.keys(shapes) as ShapeName[])(
  '%s never has more clients than its peak, nor fewer than none',
  (name) => {
    const history = historyOf(name, 1000);
    for (let second = 0; second <= history.seconds; second += 30) {
      expect(history.clientsAt(second)).toBeGreaterThanOrEqual(0);
      expect(history.clientsAt(second)).toBeLessThanOrEqual(1000);
    }
  },
);

test('a CSV is read with seconds or with dates, and with a line of names', () => {
  const seconds = historyFromCsv('a.csv', 'time,clients\n0,10\n100,20\n');
  expect([0, 50, 100, 500].map((second) => seconds.clientsAt(second))).toEqual([10, 15, 20, 20]);
  const dates = historyFromCsv('b.csv', '"2026-11-22T10:00:00Z","10"\r\n"2026-11-22T10:02:00Z","30"\r\n');
  expect(dates.seconds).toBe(120);
  expect(dates.clientsAt(60)).toBe(20);
});

test.each([
  ['0,1\n5,many', 'line 2'],
  ['10,1\n5,2', 'times must go up'],
  ['0,1\n5,-2', 'fewer than no clients'],
  ['0,1', 'two lines'],
  ['', 'two lines'],
])('of %j it says what is wrong: %s', (text, message) => {
  expect(() => historyFromCsv('c.csv', text)).toThrow(message);
});

test('values of the chart are merged as Helm merges them, and times that the chart works out are worked out', () => {
  const file = join(folder, 'values.yaml');
  writeFileSync(
    file,
    'drainSeconds: 60\ningress: {enabled: true, preset: alb}\nautoscaling: {maxReplicas: 20, cpu: {enabled: false}}\nconnectionPolicy: {rebalance: {maxSkew: 1.1}}\n',
  );
  const settings = settingsOf('--values', file, '--set', 'autoscaling.connections.target=8000');
  expect(settings.hpa).toMatchObject({
    minReplicas: 2,
    maxReplicas: 20,
    metrics: [{ kind: 'pods', name: 'tidegate_connections', targetMilli: 8_000_000 }],
    behavior: {
      scaleDown: { selectPolicy: 'Min', policies: [{ type: 'Pods', value: 1, periodSeconds: 90 }] },
    },
  });
  expect(settings.world).toMatchObject({ preStopSeconds: 20, drainSeconds: 60, graceSeconds: 90 });
  expect(settings.policy).toMatchObject({ rebalance: { maxSkew: 1.1 } });
  expect(settingsOf('--set', 'operator.enabled=false').policy).toBeUndefined();
});

test.each([
  [['--peak', 'many'], '--peak must be a number'],
  [['--balancer', 'dice'], '--balancer must be one of'],
  [['--history', 'nowhere.csv'], 'neither a file nor one of'],
  [['--values', '/nowhere.yaml'], '--values /nowhere.yaml'],
  [['--set', 'autoscaling.minReplicas'], 'expected KEY=VALUE'],
  [['--set', 'autoscaling.minReplicas=few'], 'autoscaling.minReplicas'],
  [['--set', 'autoscaling.minReplica=5'], 'the chart has no value autoscaling.minReplica'],
  [['--set', 'autoscaling.minReplicas=50'], 'minReplicas is above maxReplicas'],
  [['--wings'], '--wings'],
])('of %j it says what is wrong: %s', (args, message) => {
  expect(() => readWish(args)).toThrow(Fault);
  expect(() => readWish(args)).toThrow(message);
});

test('the picture is well-formed and the table has a row for every figure, with and without an operator', () => {
  const settings = settingsOf('--history', 'storm');
  const recording = simulate(settings, 30);
  for (const without of [recording, undefined]) {
    const picture = draw(settings, recording, without);
    expect(picture.match(/<svg |<\/svg>/g)).toHaveLength(2);
    expect(picture).not.toMatch(/NaN|Infinity|undefined/);
    const table = tableOf(settings, recording, without).split('\n');
    expect(new Set(table.map((line) => line.length)).size).toBe(1);
    expect(table[2]).toContain('40,000');
  }
  expect(changesOf(recording)).toBe('');
});

test('the help names every option', () => {
  expect(readWish(['--help'])).toBe('help');
  const source = readFileSync(new URL('./settings.ts', import.meta.url), 'utf8');
  for (const [, option] of source.matchAll(/^ {8}(\w+): (?:text|list),/gm))
    expect(source).toContain(`  --${option}`);
});
