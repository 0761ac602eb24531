// The platform: what the client needs of the world around it. Browsers and Node have it all; tests bring their own.

/** Time, chance and the network's coming back. */
export interface Platform {
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** Calls `action` after a while, unless what it returns is called before. */
  after(ms: number, action: () => void): () => void;
  /** At least 0, less than 1. */
  random(): number;
  /** A text that nobody makes a second time. */
  newKey(): string;
  /** Calls `action` whenever the network is back, until what it returns is called. */
  onOnline(action: () => void): () => void;
}

/** The part of a WebSocket that the client uses: the global one, or a class that is given to `connect`. */
export interface WebSocketLike {
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** Opens WebSockets. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** A timer with a longer delay than this would go off at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

const KEY_BYTES = 16;

/** The browser, or Node. */
export const system: Platform = {
  now: () => performance.now(),
  after(ms, action) {
    const timer = setTimeout(action, Math.min(ms, MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  random: Math.random,
  // Not randomUUID, which browsers have on secure pages only.
  newKey: () =>
    Array.from(crypto.getRandomValues(new Uint8Array(KEY_BYTES)), (byte) => byte.toString(36)).join(''),
  onOnline(action) {
    const { addEventListener, removeEventListener } = globalThis as Partial<EventTarget>;
    addEventListener?.call(globalThis, 'online', action);
    return () => removeEventListener?.call(globalThis, 'online', action);
  },
};
