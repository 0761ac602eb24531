// The fields of Kubernetes' objects that the operator reads, as they come over the wire.

import type { KubeObject } from './kube.ts';
import type { LabelSelector } from './selector.ts';

/** A Pod. */
export interface PodObject extends KubeObject {
  readonly status?: {
    readonly phase?: string;
    readonly podIP?: string;
    readonly conditions?: readonly ConditionObject[];
    readonly containerStatuses?: readonly { readonly state?: { readonly running?: object } }[];
  };
}

/** One condition of any of them. */
export interface ConditionObject {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
}

interface PodTemplate {
  readonly spec?: {
    readonly terminationGracePeriodSeconds?: number;
    readonly containers?: readonly {
      readonly lifecycle?: { readonly preStop?: { readonly sleep?: { readonly seconds?: number } } };
    }[];
  };
}

/** A Deployment or a StatefulSet. */
export interface WorkloadObject extends KubeObject {
  readonly spec: {
    readonly replicas?: number;
    readonly selector: LabelSelector;
    readonly template: PodTemplate;
  };
  readonly status?: {
    readonly observedGeneration?: number;
    readonly replicas?: number;
    readonly updatedReplicas?: number;
    readonly currentRevision?: string;
    readonly updateRevision?: string;
  };
}

/** A HorizontalPodAutoscaler. */
export interface HpaObject extends KubeObject {
  readonly spec: {
    readonly scaleTargetRef: { readonly kind: string; readonly name: string };
    readonly minReplicas?: number;
    readonly maxReplicas: number;
  };
  readonly status?: {
    readonly currentReplicas?: number;
    readonly desiredReplicas?: number;
    readonly conditions?: readonly ConditionObject[];
  };
}

/** A ConnectionPolicy, before it is decoded. */
export interface PolicyObject extends KubeObject {
  readonly spec?: unknown;
  readonly status?: unknown;
}

/** A Secret. Its values are base64. */
export interface SecretObject extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}
