// Ports: how a server takes one.

import type { ListenOptions, Server } from 'node:net';

/** Begins to listen and returns the port. Without a host it listens on every address. @throws where the port is taken. */
export async function listen(
  server: Server,
  { host, ...options }: ListenOptions & { readonly port: number; readonly host: string | undefined },
): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...options, ...(host !== undefined && { host }) }, resolve);
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : options.port;
}
