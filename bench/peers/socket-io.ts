// Socket.IO with its Redis adapter, as its documentation sets it up: `m` goes to all, `say` to a room that one
// has joined by `join`.

import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';

const publisher = new Redis(process.env.REDIS_URL ?? 'redis://127.0.0.1:6379');
const subscriber = publisher.duplicate();

const server = createServer();
const io = new Server(server, { adapter: createAdapter(publisher, subscriber) });
io.on('connection', (socket) => {
  socket.on('m', (text: string) => io.emit('m', text));
  socket.on('join', (room: string) => socket.join(room));
  socket.on('say', (room: string, text: string) => io.to(room).emit('m', text));
});

server.listen(Number(process.env.PORT), '127.0.0.1');
