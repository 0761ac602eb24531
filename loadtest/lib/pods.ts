// The pods, as their admin listeners tell of them: for scripts that look at memory and skew.

import http from 'k6/http';
import { adminToken, adminUrls } from './settings.ts';

/** What each pod that answers says of a metric. Pods that do not are left out: some are still to come, or gone. */
export async function metricOfPods(name: string): Promise<number[]> {
  const headers = adminToken === undefined ? {} : { authorization: `Bearer ${adminToken}` };
  const texts = await Promise.all(
    adminUrls.map(async (url) => {
      const { status, body } = await http.asyncRequest('GET', `${url}/metrics`, undefined, { headers });
      return status === 200 && typeof body === 'string' ? body : undefined;
    }),
  );
  return texts.flatMap((text) => {
    const value = text && new RegExp(`^${name}(?:\\{[^}]*\\})? ([^ \\n]+)`, 'm').exec(text)?.[1];
    return value === undefined || value === '' ? [] : [Number(value)];
  });
}
