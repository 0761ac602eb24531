// A receiver of traces for the scenarios: runs in the cluster, takes OTLP as JSON from whoever has the key, and answers
// `GET /` with everything that it was sent.

import { createServer } from 'node:http';

const requests = [];

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  if (request.method === 'GET') return response.end(JSON.stringify(requests));
  const isKnown = request.url === '/v1/traces' && request.headers.authorization === 'Bearer key-of-the-test';
  if (isKnown) requests.push(JSON.parse(Buffer.concat(chunks).toString()));
  response.writeHead(isKnown ? 200 : 401, { 'content-type': 'application/json' }).end('{}');
}).listen(4318);
process.on('SIGTERM', () => process.exit(0));
