// The platform: what the client needs of the world around it. Browsers and Node have it all; tests bring their own.

/** Calls off what was asked for. */
export type Cancel = () => void;

/** Time, chance and the network's coming back. */
export interface Platform {
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** Calls `action` after a while, unless what it returns is called before. */
  after(ms: number, action: () => void): Cancel;
  /** At least 0, less than 1. */
  random(): number;
  /** A text that nobody makes a second time. */
  newKey(): string;
  /** Calls `action` whenever the network is back. */
  onOnline(action: () => void): Cancel;
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

/** Timers take no longer delay than this: they would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

const KEY_BYTES = 12;

/** The browser, or Node. */
export const system: Platform = {
  now: () => performance.now(),
  after(ms, action) {
    const timer = setTimeout(action, Math.min(ms, MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  random: Math.random,
  // Not randomUUID, which browsers have on secure pages only.
  newKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  },
  onOnline(action) {
    const { addEventListener, removeEventListener } = globalThis as Partial<EventTarget>;
    addEventListener?.call(globalThis, 'online', action);
    return () => removeEventListener?.call(globalThis, 'online', action);
  },
};
