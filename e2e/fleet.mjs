// The fleet: runs in the cluster and holds as many clients as COUNT says, of the kind that applications use. Each hears
// a durable and an ephemeral channel, on which numbers are published, and sees whether every number arrives once and in
// order. `GET /` says how it is; `POST /rest` ends the publishing, and answers when the last number is out.

import { createServer } from 'node:http';
import { connect } from '/app/src/client/client.ts';

const { URL: url, COUNT, EVERY_MS } = process.env;
const CHANNELS = ['doc:fleet', 'room:fleet'];
const BATCH = 10;
const PAUSE_MS = 50;
const MAX_FAULTS = 20;

const faults = [];
const fault = (text) => faults.length < MAX_FAULTS && faults.push(text);
const clients = [];
/** The last number that each client heard on each channel. */
const heard = [];
const published = new Map(CHANNELS.map((channel) => [channel, 0]));
let subscribed = 0;
let moves = 0;
let resting = false;

function open(at) {
  const client = connect({ url: `${url}/user-${at}` });
  const last = new Map();
  heard.push(last);
  clients.push(client);
  let wasOpen = false;
  client.on('state', ({ state, reason }) => {
    if (state === 'open') wasOpen = true;
    else if (wasOpen) fault(`client ${at} has no connection: ${state} ${reason?.code} ${reason?.reason}`);
  });
  client.on('gap', ({ channel, reason }) => fault(`client ${at}: gap on ${channel}: ${reason}`));
  // Where Redis is slow to answer a client asks again, and misses nothing over it.
  client.on('error', (error) => error.retryable || fault(`client ${at}: ${error}`));
  client.on('move', () => {
    moves += 1;
  });
  for (const channel of CHANNELS) {
    const subscription = client.channel(channel).subscribe(({ data }) => {
      const before = last.get(channel);
      if (before !== undefined && data !== before + 1)
        fault(`client ${at}: ${data} after ${before} on ${channel}`);
      last.set(channel, data);
    });
    subscription.ready.then(() => {
      subscribed += 1;
    }, fault);
  }
}

async function publish(channel) {
  const publisher = connect({ url: `${url}/publisher` });
  publisher.on('error', (error) => error.retryable || fault(`publisher: ${error}`));
  while (!resting) {
    const number = (published.get(channel) ?? 0) + 1;
    try {
      await publisher.channel(channel).publish(number, { key: `${channel}-${number}` });
      published.set(channel, number);
    } catch (error) {
      fault(`publishing ${number} to ${channel}: ${error}`);
    }
    await pause(Number(EVERY_MS));
  }
  await publisher.close();
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function run() {
  for (let at = 0; at < Number(COUNT); at += 1) {
    open(at);
    if (at % BATCH === BATCH - 1) await pause(PAUSE_MS);
  }
  while (subscribed < Number(COUNT) * CHANNELS.length) await pause(PAUSE_MS);
  await Promise.all(CHANNELS.map(publish));
}
const running = run();

createServer(async (request, response) => {
  if (request.method === 'POST') {
    resting = true;
    await running;
  }
  const open = clients.filter(({ state }) => state === 'open').length;
  const isBehind = (last) => CHANNELS.some((channel) => last.get(channel) !== published.get(channel));
  const behind = heard.filter(isBehind).length;
  const ready = subscribed === Number(COUNT) * CHANNELS.length;
  response.end(
    JSON.stringify({ ready, open, moves, behind, published: Object.fromEntries(published), faults }),
  );
}).listen(7001, () => console.log('ready'));
process.on('SIGTERM', () => process.exit(0));
