// A release: the chart as it is installed in a scenario's namespace, and the ways to use it.

import { fileURLToPath } from 'node:url';
import type { V1Pod } from '@kubernetes/client-node';
import { type Client, type ConnectOptions, connect } from '../src/client/client.ts';
import { token } from '../test/tokens.ts';
import { TestClient } from '../test/websocket.ts';
import { core, eventually, isReady } from './cluster.ts';
import { run } from './programs.ts';
import { image } from './settings.ts';
import type { Space } from './space.ts';
import { agent, call, TunnelWebSocket } from './tunnel.ts';

/** The chart of this tree. */
export const chart = fileURLToPath(new URL('../charts/tidegate', import.meta.url));

/** Values of the chart. */
export type Values = Readonly<Record<string, unknown>>;

/** The values that make a chart run an image. */
export function imageValuesOf(name: string): Values {
  const colon = name.lastIndexOf(':');
  return { image: { repository: name.slice(0, colon), tag: name.slice(colon + 1) } };
}

/** The values that make the chart run the image under test, and nothing else. */
export const imageValues = imageValuesOf(image);

/** Values that suit most scenarios: pods that leave quickly and fit beside those of other scenarios. */
export const quickValues: Values = {
  ...imageValues,
  // Long enough that new connections no longer come to a pod that drains, also where kube-proxy is slow.
  preStopSeconds: 2,
  // Long enough that clients on a busy machine have moved before they are cut.
  drainSeconds: 15,
  // As long as it may be: the machine of the clients may stop for some seconds, too. Scenarios of its own are about it.
  pongTimeoutSeconds: 25,
  resources: { requests: { cpu: '10m', memory: '64Mi' } },
  redis: { resources: { requests: { cpu: '10m', memory: '32Mi' } } },
  // Scenarios of its own are about it.
  operator: { enabled: false },
  channels: {
    send: 'anyone',
    namespaces: {
      room: { subscribe: 'anyone', publish: 'anyone' },
      doc: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 10_000, ageSeconds: 86_400 } },
    },
  },
};

/** For scenarios in which every client has to move before it is cut: time for load balancers to have heard of a pod that
 * goes, and for each client the most that it is ever left. A busy machine takes seconds to connect it anew. */
export const patientValues: Values = { ...quickValues, preStopSeconds: 5, drainSeconds: 50 };

export interface InstallOptions {
  readonly helm?: 'helm' | 'helm3';
  readonly name?: string;
  readonly chart?: string;
  readonly values?: Values;
  /** What the names of all resources begin with, where it is not the release's. */
  readonly fullname?: string;
}

/** An installed chart. */
export class Release {
  readonly namespace: string;
  readonly name: string;
  readonly fullname: string;
  /** What helm said when it was installed or upgraded last. */
  notes = '';
  /** The values it was installed or upgraded with last. */
  values: Values;
  readonly #helm: string;
  #helmVersion = '';
  #chart: string;

  private constructor(namespace: string, options: InstallOptions) {
    this.namespace = namespace;
    this.name = options.name ?? 'tidegate';
    this.fullname = options.fullname ?? this.name;
    this.#helm = options.helm ?? 'helm';
    this.#chart = options.chart ?? chart;
    this.values = options.values ?? quickValues;
  }

  /** Installs the chart, with {@link quickValues} unless others are given. Does not wait for it. */
  static async install({ namespace, say }: Space, options: InstallOptions = {}): Promise<Release> {
    const release = new Release(namespace, options);
    release.#helmVersion = await run(release.#helm, ['version', '--short']);
    say(`${release.#helm} install ${release.name}`);
    release.notes = await release.helm(
      [
        'install',
        release.name,
        release.#chart,
        '--values',
        '-',
        ...(hasOperator(release.values) ? [] : SKIP),
      ],
      release.values,
    );
    return release;
  }

  /** One that is not there yet, and is to be there by {@link apply}. */
  static planned({ namespace }: Space, options: InstallOptions): Release {
    return new Release(namespace, options);
  }

  /** Puts it there as what renders without a look at the cluster does, such as Argo CD. */
  async apply(): Promise<void> {
    await run('kubectl', ['apply', '--filename', '-'], { input: await this.#render() });
  }

  /** Deletes what {@link apply} has made. */
  async unapply(): Promise<void> {
    await run('kubectl', ['delete', '--ignore-not-found', '--filename', '-'], {
      input: await this.#render(),
    });
  }

  #render(): Promise<string> {
    const args = ['template', this.name, this.#chart, '--no-hooks', '--values', '-'];
    return this.helm(args, this.values);
  }

  /** Upgrades it to exactly these values, and to another chart if one is given. @throws where helm fails */
  async upgrade(
    values: Values,
    { chart = this.#chart, args = [] }: { chart?: string; args?: readonly string[] } = {},
  ): Promise<void> {
    this.#chart = chart;
    this.values = values;
    this.notes = await this.helm(['upgrade', this.name, this.#chart, '--values', '-', ...args], values);
  }

  /** Runs helm in the namespace. */
  helm(args: readonly string[], input?: Values): Promise<string> {
    return run(this.#helm, ['--namespace', this.namespace, ...args], { input: JSON.stringify(input) });
  }

  /** Runs kubectl in the namespace. */
  kubectl(...args: string[]): Promise<string> {
    return run('kubectl', ['--namespace', this.namespace, ...args]);
  }

  /** Lets changes of Secrets and ConfigMaps reach the pods at once, as docs/operations.md says. */
  async bringFiles(): Promise<void> {
    const changed = `changed=${Date.now()}`;
    await this.kubectl('annotate', 'pods', '--selector', this.selector, '--overwrite', changed);
  }

  /** Whether Helm 3 has installed it, whatever the program is called. */
  get isHelm3(): boolean {
    return this.#helmVersion.startsWith('v3');
  }

  // ── Its pods ──────────────────────────────────────────────────────────────────────────────────

  /** What its gateways are selected by. */
  get selector(): string {
    return `app.kubernetes.io/instance=${this.name},app.kubernetes.io/component=gateway`;
  }

  /** Every gateway pod there is, also those that are on their way in or out. */
  allPods = async (): Promise<V1Pod[]> => {
    const { items } = await core.listNamespacedPod({
      namespace: this.namespace,
      labelSelector: this.selector,
    });
    return items;
  };

  /** Waits until there are so many gateway pods (two or more), every one of them ready, and the Service leads to them.
   * Returns their names and addresses. */
  async pods(count: number, seconds = 180): Promise<Pods> {
    const found = await eventually(
      `${count} gateways of ${this.namespace} to be ready`,
      seconds,
      async () => {
        const pods = await this.allPods();
        if (pods.length === count && pods.every(isReady)) return pods.map(podOf);
        throw new Error(`there are ${pods.map(stateOf).join(', ') || 'none'}`);
      },
    );
    // The nodes hear of it a little later. Any answer will do.
    await eventually(`the Service of ${this.namespace} to lead to a gateway`, 60, () =>
      call(this.httpUrl(8080)),
    );
    return found as unknown as Pods;
  }

  /** Scales it by hand, and waits until there are so many pods. What another test has left is made good, too. */
  async scale(count: number): Promise<Pods> {
    await this.kubectl('scale', `deployment/${this.fullname}`, `--replicas=${count}`);
    return this.pods(count);
  }

  // ── Ways to use it ────────────────────────────────────────────────────────────────────────────

  /** Where clients connect: at the Service, or at one pod. */
  url(pod?: Pod): string {
    return `ws://${pod?.address ?? `${this.fullname}.${this.namespace}.svc`}:8080/ws`;
  }

  /** Where backends and Prometheus connect, likewise. */
  httpUrl(port: 8080 | 8081 | 9090, pod?: Pod): string {
    return `http://${pod?.address ?? `${this.fullname}.${this.namespace}.svc`}:${port}`;
  }

  /** How many connections a pod has. */
  async connectionsOf(pod: Pod): Promise<number> {
    const { text } = await call(`${this.httpUrl(9090, pod)}/connections`);
    return (JSON.parse(text) as { connections: number }).connections;
  }

  /** What the release's Secret holds. */
  async secret(key: 'jwt-secret' | 'api-key'): Promise<string> {
    const { data } = await core.readNamespacedSecret({
      name: `${this.fullname}-auth`,
      namespace: this.namespace,
    });
    return Buffer.from(data?.[key] ?? '', 'base64').toString();
  }

  /** A token for a user. */
  async token(user: string): Promise<string> {
    const [newest = ''] = (await this.secret('jwt-secret')).split('\n');
    return token({ sub: user }, newest);
  }

  /** The client that applications use. */
  client(user: string, { pod, ...options }: { pod?: Pod } & Partial<ConnectOptions> = {}): Client {
    return connect({
      url: this.url(pod),
      token: () => this.token(user),
      WebSocket: TunnelWebSocket,
      ...options,
    });
  }

  /** A bare connection, which does nothing by itself. */
  async connection(user: string, pod?: Pod, { isPlain = false } = {}): Promise<TestClient> {
    const options = { protocols: [`bearer.${await this.token(user)}`], agent };
    if (!isPlain) return TestClient.v1(this.url(pod), options);
    return TestClient.open(this.url(pod), {
      ...options,
      protocols: ['tidegate.plain', ...options.protocols],
    });
  }
}

/** Who has no operator needs no kind of its resources; and Helm 4 would refuse the install while the scenario that changes
 * this kind, which is the whole cluster's, is at it. */
const SKIP = ['--skip-crds'];

function hasOperator(values: Values): boolean {
  const { operator } = (values.tidegate ?? values) as { operator?: { enabled?: boolean } };
  return operator?.enabled !== false;
}

/** A gateway pod that is ready. */
export interface Pod {
  readonly name: string;
  readonly address: string;
}

/** Pods, two or more: with one alone there is nothing between pods to see. */
export type Pods = readonly [Pod, Pod, ...Pod[]];

/** A pod, as it is told of one that is waited for. */
function stateOf(pod: V1Pod): string {
  const { metadata, status } = pod;
  const isLeaving = metadata?.deletionTimestamp !== undefined;
  const reasons = status?.containerStatuses?.map(
    ({ state }) => state?.waiting?.reason ?? state?.terminated?.reason,
  );
  const why = reasons?.filter((it) => it !== undefined) ?? [];
  const word = isLeaving ? 'leaving' : isReady(pod) ? 'ready' : 'not ready';
  return [`${metadata?.name} (${[word, status?.phase, ...why].join(', ')})`].join();
}

function podOf({ metadata, status }: V1Pod): Pod {
  return { name: metadata?.name ?? '', address: status?.podIP ?? '' };
}
