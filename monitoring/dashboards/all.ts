// All dashboards, in the order in which they are shown.

import type { Dashboard } from '../panel.ts';
import { autoscaling } from './autoscaling.ts';
import { bus } from './bus.ts';
import { fanout } from './fanout.ts';
import { health } from './health.ts';

export const dashboards: readonly Dashboard[] = [health, fanout, autoscaling, bus];
