// The crowd: runs in the cluster and holds as many connections as it is told to, by `PUT /COUNT`. Whoever is cut comes
// back; who leaves is chosen from the youngest. `GET /` says how many are open.

import { createServer } from 'node:http';

const BATCH = 20;
const PAUSE_MS = 50;

const sockets = [];
let wanted = 0;
let working = false;

function open() {
  const socket = new WebSocket(process.env.URL, ['tidegate.v1']);
  socket.addEventListener('close', () => {
    const at = sockets.indexOf(socket);
    if (at !== -1) sockets.splice(at, 1);
    void work();
  });
  socket.addEventListener('error', () => {});
  sockets.push(socket);
}

async function work() {
  if (working) return;
  working = true;
  while (sockets.length !== wanted) {
    for (let count = 0; count < BATCH && sockets.length < wanted; count += 1) open();
    for (let count = 0; count < BATCH && sockets.length > wanted; count += 1) sockets.pop().close();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  working = false;
}

createServer((request, response) => {
  if (request.method === 'PUT') {
    wanted = Number(request.url.slice(1));
    void work();
  }
  const isOpen = ({ readyState }) => readyState === WebSocket.OPEN;
  response.end(JSON.stringify({ wanted, open: sockets.filter(isOpen).length }));
}).listen(7001, () => console.log('ready'));
process.on('SIGTERM', () => process.exit(0));
