// The tunnel: connections from this machine to any pod or Service, through the relay in the cluster.

import { Agent, type ClientRequestArgs, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { WebSocket } from 'ws';
import type { WebSocketConstructor } from '../src/client/client.ts';
import { relayPort } from './settings.ts';

/** Opens a connection from within the cluster. Where nobody listens it ends without a word. */
export function tunnel(host: string, port: number): Socket {
  const socket = connect(relayPort(), '127.0.0.1');
  socket.setNoDelay(true);
  socket.write(`${host}:${port}\n`);
  return socket;
}

class TunnelAgent extends Agent {
  override createConnection(options: ClientRequestArgs): Socket {
    return tunnel(String(options.host), Number(options.port));
  }
}

/** For everything that speaks HTTP. Each request has a connection of its own, so that a Service can spread them. */
export const agent = new TunnelAgent({ keepAlive: false });

/** A WebSocket that comes from within the cluster, for the client. */
export const TunnelWebSocket = class extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols, { agent });
  }
} as unknown as WebSocketConstructor; // its events say more than the client asks for

export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Makes an HTTP request from within the cluster. */
export function call(
  url: string,
  { method = 'GET', headers = {}, body }: { method?: string; headers?: object; body?: unknown } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' };
    const sent = request(url, { agent, method, headers: { ...json, ...headers } }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
