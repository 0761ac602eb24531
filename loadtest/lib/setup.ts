// Before the run: is there a gateway, and does it let this test do what it has to?

import exec from 'k6/execution';
import { connect } from './connect.ts';
import { allOr } from './fleet.ts';
import { url } from './settings.ts';

const TRY_MS = 10_000;

/** Connects once, and subscribes to the channels that will be used; ends the run with what to do where it cannot. */
export async function checkTarget(channels: readonly string[]): Promise<void> {
  const connection = connect('load-check');
  const { client } = connection;
  let problem = `nothing answers at ${url}: start a gateway (npm start), or pass -e URL=ws://HOST:PORT`;
  client.on('state', ({ state, reason }) => {
    if (state === 'closed' && reason?.code === 1008) {
      problem = `${url} refuses the token: pass -e JWT_SECRET= with the gateway's secret`;
    }
    if (state === 'open') problem = '';
  });
  client.on('error', (error) => {
    problem = `${url}: ${error.message} Pass -e NAMESPACE= and -e DURABLE_NAMESPACE= with namespaces in which anyone, or the token's claims, may publish and subscribe.`;
  });
  const opening = new Promise<void>((resolve) => {
    client.on('state', ({ state }) => {
      if (state === 'open' || state === 'closed') resolve();
    });
  });
  const subscriptions = channels.map((channel) => client.channel(channel).subscribe(() => {}).ready);
  await allOr([opening, ...subscriptions], Date.now() + TRY_MS);
  await client.close();
  if (problem !== '') exec.test.abort(problem);
}
