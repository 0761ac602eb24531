// The drain guard: tells which pods would be killed before they have drained, while there is time to mend it.

import type { Census } from './census.ts';
import type { Verdict } from './conditions.ts';
import type { Observation } from './observation.ts';
import { namesOf } from './obstacles.ts';

/** What ending the process takes after its drain. */
const SLACK_SECONDS = 2;

/**
 * A pod that tells drainSeconds is done by then, whatever it holds, so that only the grace period can be too short.
 * One that does not is as fast as pods were seen draining.
 */
export function drainGuard({ workload }: Observation, { members, drainPacePerSecond }: Census): Verdict {
  if (workload === undefined) {
    return { status: 'Unknown', reason: 'TargetNotFound', message: 'there is no workload' };
  }
  if (members.length === 0) {
    return { status: 'Unknown', reason: 'NoPods', message: 'no ready pod tells its connections' };
  }
  const { graceSeconds, preStopSeconds } = workload;
  const leftSeconds = graceSeconds - preStopSeconds - SLACK_SECONDS;

  const late = members.filter(({ answer }) => (answer.drainSeconds ?? 0) > leftSeconds);
  if (late.length > 0) {
    const drainSeconds = Math.max(...late.map(({ answer }) => answer.drainSeconds ?? 0));
    const needed = preStopSeconds + drainSeconds + SLACK_SECONDS;
    return {
      status: 'True',
      reason: 'GraceTooShort',
      message:
        `${namesOf(late.map(({ pod }) => pod.name))}: preStop ${preStopSeconds} s and drain ${drainSeconds} s need ` +
        `a terminationGracePeriodSeconds of ${needed}; it is ${graceSeconds}`,
    };
  }
  const untold = members.filter(({ answer }) => answer.drainSeconds === undefined);
  if (untold.length === 0) {
    return {
      status: 'False',
      reason: 'Fits',
      message: 'preStop and drain are shorter than the grace period',
    };
  }
  if (drainPacePerSecond === undefined) {
    const message = 'pods do not tell drainSeconds, and none has been seen draining';
    return { status: 'Unknown', reason: 'NotMeasured', message };
  }
  const slow = untold.filter(({ answer }) => answer.connections / drainPacePerSecond > leftSeconds);
  const pace = `${drainPacePerSecond.toFixed(1)} connections a second, as last measured`;
  if (slow.length === 0) {
    return { status: 'False', reason: 'Fits', message: `every pod drains in time at ${pace}` };
  }
  const most = Math.max(...slow.map(({ answer }) => answer.connections));
  return {
    status: 'True',
    reason: 'TooManyConnections',
    message:
      `${namesOf(slow.map(({ pod }) => pod.name))}: up to ${most} connections need ` +
      `${Math.ceil(most / drainPacePerSecond)} s at ${pace}; there are ${Math.max(0, leftSeconds)} s`,
  };
}
