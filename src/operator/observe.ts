// One workload, observed: finds it and its autoscaler, asks its pods, and puts together what a round saw.

import type { Report } from '../platform/logs.ts';
import { isNotFound, type Kube } from './kube.ts';
import type { HpaObject, WorkloadObject } from './objects.ts';
import type { Hpa, MetricsApiState, Observation, Rival, Workload } from './observation.ts';
import { Pods, type SeenPod } from './pods.ts';
import type { Policy } from './policy.ts';
import type { Poller } from './poll.ts';
import { selectorText } from './selector.ts';

/** What observing needs. */
export interface ObserverSettings {
  readonly kube: Kube;
  readonly poller: Poller;
  readonly report: Report;
  onRestart(): void;
}

/** What is looked up elsewhere. */
export interface Surroundings {
  readonly hpas: readonly HpaObject[];
  readonly rivals: readonly Rival[];
  readonly token: string | undefined;
  readonly metricsApi: MetricsApiState | undefined;
}

/** Observes the workload of one policy, which may change meanwhile. */
export class Observer {
  readonly #settings: ObserverSettings;
  #pods: Pods | undefined;
  #selector = '';
  #workload: WorkloadObject | undefined;
  #policy: Policy;
  #token: string | undefined;
  #isComplete = false;

  constructor(settings: ObserverSettings, policy: Policy) {
    this.#settings = settings;
    this.#policy = policy;
  }

  /** Whether every pod of the workload has been asked at least once, or there is no workload. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  get policy(): Policy {
    return this.#policy;
  }

  get workload(): WorkloadObject | undefined {
    return this.#workload;
  }

  get pods(): SeenPod[] {
    return this.#pods?.list(this.#policy.spec.adminPort, this.#token) ?? [];
  }

  /** @throws where the API server does not say what the workload is, and never has. */
  async round(policy: Policy, { hpas, rivals, token, metricsApi }: Surroundings): Promise<Observation> {
    this.#policy = policy;
    this.#token = token;
    await this.#find(policy);
    const { targetRef, adminPort } = policy.spec;
    // Those that are listed while others are asked have not been asked.
    const isListed = this.#pods?.isComplete ?? true;
    await this.#pods?.poll(this.#settings.poller, adminPort, token);
    this.#isComplete ||= isListed;
    const pods = this.pods;
    const hpa = hpas.find(
      ({ metadata, spec: { scaleTargetRef: ref } }) =>
        metadata.namespace === policy.namespace && ref.kind === targetRef.kind && ref.name === targetRef.name,
    );
    return {
      workload: this.#workload && readWorkload(this.#workload, targetRef.kind),
      hpa: hpa && readHpa(hpa),
      pods,
      bus: busOf(pods),
      rivals,
      metricsApi,
    };
  }

  async stop(): Promise<void> {
    await this.#pods?.stop();
  }

  /** Looks at the workload, and watches the pods that it selects. While the API server is away, it is as it was. */
  async #find({ namespace, spec: { targetRef } }: Policy): Promise<void> {
    const { kube, report, onRestart } = this.#settings;
    const plural = targetRef.kind === 'Deployment' ? 'deployments' : 'statefulsets';
    try {
      const path = `/apis/apps/v1/namespaces/${namespace}/${plural}/${targetRef.name}`;
      this.#workload = await kube.get<WorkloadObject>(path);
    } catch (error) {
      if (isNotFound(error)) this.#workload = undefined;
      else if (this.#workload === undefined) throw error;
      else report(`read ${namespace}/${targetRef.name}`, error);
    }
    const selector = this.#workload === undefined ? '' : selectorText(this.#workload.spec.selector);
    if (selector === this.#selector) return;
    this.#selector = selector;
    this.#isComplete = false;
    const before = this.#pods;
    this.#pods =
      selector === '' ? undefined : new Pods({ kube, namespace, labelSelector: selector, report, onRestart });
    await before?.stop();
  }
}

function readWorkload({ metadata, spec, status = {} }: WorkloadObject, kind: Workload['kind']): Workload {
  const { replicas: actual = 0, updatedReplicas = 0, observedGeneration = 0 } = status;
  const isSeen = observedGeneration >= (metadata.generation ?? 0);
  const rolling =
    kind === 'Deployment' ? updatedReplicas < actual : status.currentRevision !== status.updateRevision;
  const containers = spec.template.spec?.containers ?? [];
  return {
    kind,
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    desired: spec.replicas ?? 1,
    actual,
    rolling: rolling || !isSeen,
    graceSeconds: spec.template.spec?.terminationGracePeriodSeconds ?? 30,
    preStopSeconds: Math.max(
      0,
      ...containers.map(({ lifecycle }) => lifecycle?.preStop?.sleep?.seconds ?? 0),
    ),
  };
}

function readHpa({ metadata, spec, status = {} }: HpaObject): Hpa {
  const current = status.currentReplicas ?? 0;
  return {
    name: metadata.name,
    min: spec.minReplicas ?? 1,
    max: spec.maxReplicas,
    // 0 in one that has not been able to compute anything yet.
    desired: status.desiredReplicas || current,
    current,
    atLimit: (status.conditions ?? []).some(
      ({ type, status: it, reason }) =>
        type === 'ScalingLimited' && it === 'True' && reason === 'TooManyReplicas',
    ),
  };
}

/** Of the ready pods: `down` where any of them says so, since moved clients might land there. */
function busOf(pods: readonly SeenPod[]): Observation['bus'] {
  const said = pods.filter(({ ready, deleting }) => ready && !deleting).map(({ bus }) => bus);
  if (said.includes('down')) return 'down';
  return said.includes('up') ? 'up' : 'unknown';
}
