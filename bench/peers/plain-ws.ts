// The plain broadcaster: what most people write first, ws and ioredis. Every text goes through Redis to the
// members of the sender's channel: /room/NAME is a room, any other path the one channel for all.

import { createServer } from 'node:http';
import { Redis } from 'ioredis';
import { type WebSocket, WebSocketServer } from 'ws';

const redisUrl = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379';
const publisher = new Redis(redisUrl);
const subscriber = new Redis(redisUrl);
const channels = new Map<string, Set<WebSocket>>();

subscriber.on('message', (channel, text) => {
  for (const client of channels.get(channel) ?? []) {
    if (client.readyState === client.OPEN) client.send(text);
  }
});

function join(channel: string, client: WebSocket): void {
  const members = channels.get(channel) ?? new Set();
  if (members.size === 0) void subscriber.subscribe(channel);
  channels.set(channel, members.add(client));
}

const server = createServer();
new WebSocketServer({ server }).on('connection', (client, request) => {
  const [, kind, name = ''] = (request.url ?? '').split('/');
  const channel = kind === 'room' ? `room:${name}` : 'ws_broadcast';
  join(channel, client);
  client.on('message', (data) => {
    void publisher.publish(channel, JSON.stringify({ sender: name, text: data.toString() }));
  });
  client.on('close', () => channels.get(channel)?.delete(client));
});

await subscriber.subscribe('ws_broadcast');
server.listen(Number(process.env.PORT), '127.0.0.1');
