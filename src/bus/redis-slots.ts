// Slots: which node of a Cluster owns what, and what its answers say about that.

import calculateSlot from 'cluster-key-slot';

/** Where a server is. */
export interface Host {
  readonly host: string;
  readonly port: number;
}

/** Who owns which slot, as one node sees it. */
export class Slots {
  /** Every master that owns any, by its name `host:port`. */
  readonly nodes = new Map<string, Host>();
  readonly #owners: string[] = [];

  /** Reads the answer of CLUSTER SLOTS: [start, end, [host, port, ...], replicas...]. A node that does not know its
   * own address, or is told to keep it, leaves the host out, and means the one that was asked. */
  constructor(answer: unknown, asked: Host) {
    if (!Array.isArray(answer)) return;
    for (const range of answer as unknown[]) {
      const [start, end, master] = Array.isArray(range) ? (range as unknown[]) : [];
      if (!Array.isArray(master)) continue;
      const host = String(master[0] ?? '') || asked.host;
      const port = Number(master[1]);
      const node = `${host}:${port}`;
      this.nodes.set(node, { host, port });
      for (let slot = Number(start); slot <= Number(end); slot += 1) this.#owners[slot] = node;
    }
  }

  /** The name of the node that owns the key's slot; undefined where nobody does. */
  ownerOf(key: string): string | undefined {
    return this.#owners[calculateSlot(key)];
  }

  equals(other: Slots): boolean {
    const isSame = (owner: string | undefined, slot: number) => owner === other.#owners[slot];
    return this.#owners.length === other.#owners.length && this.#owners.every(isSame);
  }
}

/** Where a node sends a command that it did not carry out: on to the new owner of its slot (`MOVED`), or, this
 * once, to the node that the slot is moving to (`ASK`). */
export interface Redirect {
  readonly kind: 'MOVED' | 'ASK';
  readonly node: string;
}

/** The redirect in an error, if it is one. `asked` stands in for a host that is left out. */
export function readRedirect(error: unknown, asked: Host): Redirect | undefined {
  const match = error instanceof Error ? /^(MOVED|ASK) \d+ (.*):(\d+)$/.exec(error.message) : null;
  if (match === null) return undefined;
  return { kind: match[1] === 'ASK' ? 'ASK' : 'MOVED', node: `${match[2] || asked.host}:${match[3]}` };
}
