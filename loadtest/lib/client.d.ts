// client.js is src/client in the JavaScript that k6 understands: scripts/client.ts makes it.
export { Client } from '../../src/client/client.ts';
