// The relay: runs in the cluster. A connection's first line is `HOST:PORT`; the rest goes there and back.
// It ends its connections in an orderly way, whatever happens: `kubectl port-forward`, which leads here, gives up all
// of them when one is reset.

import { connect, createServer } from 'node:net';

const MAX_LINE_BYTES = 300;
const CONNECT_TIMEOUT_MS = 5000;

createServer((client) => {
  let head = Buffer.alloc(0);
  client.on('error', () => client.destroy());
  client.on('data', function read(chunk) {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\n');
    if (end === -1 && head.length < MAX_LINE_BYTES) return;
    client.off('data', read);
    const [, host, port] = /^(.+):(\d+)$/.exec(head.toString('utf8', 0, Math.max(end, 0))) ?? [];
    if (host === undefined) return void client.end();
    const target = connect(Number(port), host);
    target.setNoDelay(true);
    // The first packets to a Service that is not known everywhere yet go nowhere, and so do all that repeat them.
    // After a stall the answer may be there and not be read yet, as timers come first.
    const giveUp = () => target.connecting && target.destroy();
    const timer = setTimeout(() => setImmediate(giveUp), CONNECT_TIMEOUT_MS);
    target.on('connect', () => clearTimeout(timer));
    target.write(head.subarray(end + 1));
    target.on('error', () => client.end());
    target.on('close', () => {
      clearTimeout(timer);
      client.end();
    });
    client.on('close', () => target.destroy());
    client.pipe(target);
    target.pipe(client);
  });
  client.setNoDelay(true);
}).listen(7000, () => console.log('ready'));
process.on('SIGTERM', () => process.exit(0));
