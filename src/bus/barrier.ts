// A barrier: shows that all that one Redis server had taken has come here. It sends a marker to this pod itself: a
// server hands a subscriber everything in the order in which it took it, so what was before the marker is here.

/** How long a marker may take. */
const TIMEOUT_MS = 2000;

/** The markers of one lane: one under way at a time, whoever waits. */
export class Barrier {
  readonly #publish: (bytes: Buffer) => Promise<unknown>;
  #made = 0;
  #marker = '';
  #returned = () => {};
  /** The one that begins when the one under way is over. */
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();

  /** `publish` sends to a topic that comes back here. */
  constructor(publish: (bytes: Buffer) => Promise<unknown>) {
    this.#publish = publish;
  }

  /** Resolves when everything that the server took before the call is here. Who comes while a marker is under way
   * waits for the next one, which all of them share. @throws {Error} where that is not known in time. */
  pass(): Promise<void> {
    if (this.#next === undefined) {
      const pass = this.#last.then(
        () => this.#send(),
        () => this.#send(),
      );
      this.#next = pass;
      this.#last = pass;
    }
    return this.#next;
  }

  /** Sends the marker that is under way once more: the subscription was made anew, and what was sent before is lost. */
  again(): void {
    if (this.#marker !== '') this.#publish(Buffer.from(this.#marker)).catch(() => {});
  }

  /** Takes the message if it is the marker. */
  hear(bytes: Buffer): boolean {
    const isMarker = bytes.toString('latin1') === this.#marker;
    if (isMarker) this.#returned();
    return isMarker;
  }

  async #send(): Promise<void> {
    this.#next = undefined;
    this.#made += 1;
    this.#marker = `barrier ${this.#made}`;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#returned = resolve;
    const timer = setTimeout(() => reject(new Error('a marker did not come back in time')), TIMEOUT_MS);
    try {
      await Promise.all([promise, this.#publish(Buffer.from(this.#marker))]);
    } finally {
      this.#marker = '';
      clearTimeout(timer);
    }
  }
}
