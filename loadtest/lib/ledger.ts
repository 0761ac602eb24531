// The ledger: what one connection has received of each publisher, and what is missing, doubled or out of order.

import type { Stamp } from './protocol.ts';

/** Who is told what a ledger finds. */
export interface Findings {
  received(): void;
  doubled(): void;
  disordered(): void;
  lost(messages: number): void;
}

interface Page {
  /** Every message up to this one has come, or was given up. */
  through: number;
  /** Those beyond it. Few: only what overtook something. */
  readonly beyond: Set<number>;
  last: number;
  /** How many there are; known when the publisher has said so. */
  total: number | undefined;
  /** Whether what is missing before the next message was told to be missing. */
  excused: boolean;
}

/** More than this out of order is a loss of what is before them, not a delay. It bounds the memory. */
const MAX_BEYOND = 1000;

/** The ledger of one connection. */
export class Ledger {
  readonly #pages = new Map<string, Page>();
  readonly #findings: Findings;

  constructor(findings: Findings) {
    this.#findings = findings;
  }

  /** Expects a publisher's messages from its first on. Other publishers are followed from the first that comes. */
  expect(by: string): void {
    this.#open(by, 0);
  }

  /** Enters a message, and returns whether it is a new one. */
  enter({ by, seq, end }: Stamp): boolean {
    const page = this.#pages.get(by) ?? this.#open(by, seq - 1);
    if (end) {
      page.total = seq;
      return false;
    }
    if (seq <= page.through || page.beyond.has(seq)) {
      this.#findings.doubled();
      return false;
    }
    this.#findings.received();
    if (seq < page.last) this.#findings.disordered();
    page.last = Math.max(page.last, seq);
    if (page.excused) this.#giveUp(page, seq - 1);
    page.excused = false;
    page.beyond.add(seq);
    this.#advance(page);
    if (page.beyond.size > MAX_BEYOND) this.#giveUp(page, page.last - 1);
    return true;
  }

  /** The gateway, or the client, has told that messages may be missing: no silent loss. */
  excuse(): void {
    for (const page of this.#pages.values()) page.excused = true;
  }

  /** Whether so many publishers have ended, and nothing of them is still to come. */
  isComplete(publishers: number): boolean {
    let complete = 0;
    for (const { through, total, excused } of this.#pages.values()) {
      if (total !== undefined && (through >= total || excused)) complete++;
    }
    return complete >= publishers;
  }

  /** Closes the ledger: what has not come by now is lost. Returns whether so many publishers had ended. */
  close(publishers: number): boolean {
    let ended = 0;
    for (const page of this.#pages.values()) {
      if (page.total !== undefined) ended++;
      this.#giveUp(page, page.total ?? page.last);
    }
    return ended >= publishers;
  }

  #open(by: string, through: number): Page {
    const page = { through, beyond: new Set<number>(), last: 0, total: undefined, excused: false };
    this.#pages.set(by, page);
    return page;
  }

  #giveUp(page: Page, to: number): void {
    if (to <= page.through) return;
    let missing = to - page.through;
    for (const seq of page.beyond) {
      if (seq > to) continue;
      page.beyond.delete(seq);
      missing--;
    }
    page.through = to;
    if (missing > 0 && !page.excused) this.#findings.lost(missing);
    this.#advance(page);
  }

  #advance(page: Page): void {
    while (page.beyond.delete(page.through + 1)) page.through++;
  }
}
