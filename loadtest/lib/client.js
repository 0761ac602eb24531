// Made from src/client by scripts/client.ts: run `npm run docs`.
var __defProp = Object.defineProperty;
var __typeError = (msg) => {
  throw TypeError(msg);
};
var __defNormalProp = (obj, key, value) => key in obj ? __defProp(obj, key, { enumerable: true, configurable: true, writable: true, value }) : obj[key] = value;
var __publicField = (obj, key, value) => __defNormalProp(obj, typeof key !== "symbol" ? key + "" : key, value);
var __accessCheck = (obj, member, msg) => member.has(obj) || __typeError("Cannot " + msg);
var __privateGet = (obj, member, getter) => (__accessCheck(obj, member, "read from private field"), getter ? getter.call(obj) : member.get(obj));
var __privateAdd = (obj, member, value) => member.has(obj) ? __typeError("Cannot add the same private member more than once") : member instanceof WeakSet ? member.add(obj) : member.set(obj, value);
var __privateSet = (obj, member, value, setter) => (__accessCheck(obj, member, "write to private field"), setter ? setter.call(obj, value) : member.set(obj, value), value);
var __privateMethod = (obj, member, method) => (__accessCheck(obj, member, "access private method"), method);
var __privateWrapper = (obj, member, setter, getter) => ({
  set _(value) {
    __privateSet(obj, member, value, setter);
  },
  get _() {
    return __privateGet(obj, member, getter);
  }
});

// src/protocol/close-action.ts
var actions = {
  1003: "stop",
  1008: "refresh",
  1009: "stop",
  4402: "refresh",
  4403: "stop",
  4405: "stop"
};
function actionAfter(code) {
  return actions[code] ?? "reconnect";
}

// src/protocol/names.ts
var namePattern = /^[A-Za-z0-9._~@:/-]{1,128}$/;
function isName(value) {
  return typeof value === "string" && namePattern.test(value);
}

// src/client/errors.ts
var ClientError = class extends Error {
  constructor(code, message, details = {}) {
    super(message, { cause: details.cause });
    __publicField(this, "code");
    /** The same call may succeed later. */
    __publicField(this, "retryable");
    /** How long to wait before, where that is known. */
    __publicField(this, "retryAfterMs");
    /** The channel it is about, if it is about one. */
    __publicField(this, "channel");
    this.name = "ClientError";
    this.code = code;
    this.retryable = details.retryable ?? false;
    this.retryAfterMs = details.retryAfterMs;
    this.channel = details.channel;
  }
};
function errorOf(answer, channel) {
  const { code, message } = answer;
  return new ClientError(code, message, { ...answer, channel });
}

// src/client/events.ts
var _listeners, _Events_instances, of_fn;
var Events = class {
  constructor() {
    __privateAdd(this, _Events_instances);
    __privateAdd(this, _listeners, /* @__PURE__ */ new Map());
  }
  /** Adds a listener, and returns what takes it away. */
  on(event, listener) {
    const all = __privateMethod(this, _Events_instances, of_fn).call(this, event);
    all.add(listener);
    return () => void all.delete(listener);
  }
  emit(event, value) {
    const all = __privateMethod(this, _Events_instances, of_fn).call(this, event);
    if (event === "error" && all.size === 0) console.error(value);
    for (const listener of all) {
      if (event === "error") guard(() => listener(value), console.error);
      else this.call(listener, value);
    }
  }
  /** Calls a handler of the application; what it throws, at once or later, becomes an `error`. */
  call(handler, value) {
    guard(
      () => handler(value),
      (cause) => this.emit("error", new ClientError("handler", `A handler failed: ${cause}`, { cause }))
    );
  }
};
_listeners = new WeakMap();
_Events_instances = new WeakSet();
of_fn = function(event) {
  const all = __privateGet(this, _listeners).get(event) ?? /* @__PURE__ */ new Set();
  __privateGet(this, _listeners).set(event, all);
  return all;
};
function guard(action, failed) {
  try {
    const result = action();
    if (result instanceof Promise) result.catch(failed);
  } catch (error) {
    failed(error);
  }
}

// src/client/timer.ts
var _platform, _cancel;
var Timer = class {
  constructor(platform) {
    __privateAdd(this, _platform);
    __privateAdd(this, _cancel);
    __privateSet(this, _platform, platform);
  }
  get isSet() {
    return __privateGet(this, _cancel) !== void 0;
  }
  set(ms, action) {
    this.clear();
    __privateSet(this, _cancel, __privateGet(this, _platform).after(ms, () => {
      __privateSet(this, _cancel, void 0);
      action();
    }));
  }
  clear() {
    var _a;
    (_a = __privateGet(this, _cancel)) == null ? void 0 : _a.call(this);
    __privateSet(this, _cancel, void 0);
  }
};
_platform = new WeakMap();
_cancel = new WeakMap();

// src/client/link.ts
var SUBPROTOCOL = "tidegate.v1";
var DEFAULT_PING_INTERVAL_MS = 25e3;
var DEFAULT_MAX_MESSAGE_BYTES = 65536;
var CLOSE_TIMEOUT_MS = 1e3;
var _settings, _platform2, _owner, _socket, _timer, _waiting, _lastRef, _heardAtMs, _pingedAtMs, _pingIntervalMs, _maxMessageBytes, _ended, _gone, _Link_instances, hear_fn, welcome_fn, watch_fn, check_fn, fail_fn, end_fn, abandon_fn;
var Link = class {
  /** Begins to connect. @throws where the URL is none, or the token cannot be one. */
  constructor(settings, platform, token, query, owner) {
    __privateAdd(this, _Link_instances);
    __privateAdd(this, _settings);
    __privateAdd(this, _platform2);
    __privateAdd(this, _owner);
    __privateAdd(this, _socket);
    __privateAdd(this, _timer);
    __privateAdd(this, _waiting, /* @__PURE__ */ new Map());
    __privateAdd(this, _lastRef, 0);
    __privateAdd(this, _heardAtMs, 0);
    __privateAdd(this, _pingedAtMs);
    __privateAdd(this, _pingIntervalMs, 0);
    __privateAdd(this, _maxMessageBytes, 0);
    __privateAdd(this, _ended, false);
    __privateAdd(this, _gone, () => {
    });
    __privateSet(this, _settings, settings);
    __privateSet(this, _platform2, platform);
    __privateSet(this, _owner, owner);
    __privateSet(this, _timer, new Timer(platform));
    const WebSocket = settings.WebSocket ?? globalThis.WebSocket;
    if (!WebSocket) throw new Error("No WebSocket here: use Node 22, or give one as an option.");
    __privateSet(this, _socket, new WebSocket(
      settings.url + (settings.url.includes("?") ? "&" : "?") + query,
      token === void 0 ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${token}`]
    ));
    __privateGet(this, _socket).onmessage = ({ data }) => __privateMethod(this, _Link_instances, hear_fn).call(this, data);
    __privateGet(this, _socket).onclose = ({ code, reason }) => {
      __privateMethod(this, _Link_instances, end_fn).call(this, { code, reason });
      __privateGet(this, _gone).call(this);
    };
    __privateGet(this, _socket).onerror = () => {
    };
    __privateGet(this, _timer).set(settings.connectTimeoutMs, () => __privateMethod(this, _Link_instances, fail_fn).call(this, "no welcome in time"));
  }
  /** The largest frame that the gateway takes. */
  get maxMessageBytes() {
    return __privateGet(this, _maxMessageBytes);
  }
  /** Every command is answered. */
  get isIdle() {
    return __privateGet(this, _waiting).size === 0;
  }
  /** Sends a command, the JSON text of an object without `ref`, and tells its answer once. */
  request(command, answered) {
    const ref = ++__privateWrapper(this, _lastRef)._;
    __privateGet(this, _waiting).set(ref, { askedAtMs: __privateGet(this, _platform2).now(), answered });
    __privateGet(this, _socket).send(`{"ref":${ref},${command.slice(1)}`);
  }
  /** Ends it from this side, without telling the owner; what was unanswered is told so. Resolves when the socket is
   * closed, or the other side has not answered for a while. */
  close() {
    const gone = new Promise((resolve) => {
      __privateGet(this, _timer).set(CLOSE_TIMEOUT_MS, resolve);
      __privateSet(this, _gone, () => {
        __privateGet(this, _timer).clear();
        resolve();
      });
    });
    __privateSet(this, _ended, true);
    __privateMethod(this, _Link_instances, abandon_fn).call(this);
    __privateGet(this, _socket).close(1e3);
    return gone;
  }
};
_settings = new WeakMap();
_platform2 = new WeakMap();
_owner = new WeakMap();
_socket = new WeakMap();
_timer = new WeakMap();
_waiting = new WeakMap();
_lastRef = new WeakMap();
_heardAtMs = new WeakMap();
_pingedAtMs = new WeakMap();
_pingIntervalMs = new WeakMap();
_maxMessageBytes = new WeakMap();
_ended = new WeakMap();
_gone = new WeakMap();
_Link_instances = new WeakSet();
hear_fn = function(data) {
  if (__privateGet(this, _ended)) return;
  __privateSet(this, _heardAtMs, __privateGet(this, _platform2).now());
  const frame = parse(data);
  const { type, ref } = frame;
  if (type === "welcome") __privateMethod(this, _Link_instances, welcome_fn).call(this, frame);
  else if ((type === "ok" || type === "error") && typeof ref === "number") {
    const { answered } = __privateGet(this, _waiting).get(ref) ?? {};
    __privateGet(this, _waiting).delete(ref);
    answered?.(frame);
  } else __privateGet(this, _owner).received(this, frame);
};
welcome_fn = function(welcome) {
  const { pingIntervalMs = DEFAULT_PING_INTERVAL_MS, maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES } = welcome;
  __privateSet(this, _pingIntervalMs, Number(pingIntervalMs));
  __privateSet(this, _maxMessageBytes, Number(maxMessageBytes));
  __privateMethod(this, _Link_instances, watch_fn).call(this, __privateGet(this, _pingIntervalMs));
  __privateGet(this, _owner).welcomed(this, welcome);
};
watch_fn = function(afterMs) {
  __privateGet(this, _timer).set(afterMs, () => __privateMethod(this, _Link_instances, check_fn).call(this));
};
/** The gateway pings by the protocol, which browsers do not show; so where nothing else was heard, it is asked. A
 * ping that comes late, because the machine slept, has its whole time all the same. */
check_fn = function() {
  const { pongTimeoutMs, answerTimeoutMs } = __privateGet(this, _settings);
  const nowMs = __privateGet(this, _platform2).now();
  const idleMs = nowMs - __privateGet(this, _heardAtMs);
  const [oldest] = __privateGet(this, _waiting).values();
  if (__privateGet(this, _pingedAtMs) !== void 0 && __privateGet(this, _heardAtMs) < __privateGet(this, _pingedAtMs)) {
    __privateMethod(this, _Link_instances, fail_fn).call(this, "no answer to a ping");
  } else if (oldest !== void 0 && nowMs - oldest.askedAtMs >= answerTimeoutMs) {
    __privateMethod(this, _Link_instances, fail_fn).call(this, "no answer to a command");
  } else if (idleMs < __privateGet(this, _pingIntervalMs)) {
    __privateSet(this, _pingedAtMs, void 0);
    __privateMethod(this, _Link_instances, watch_fn).call(this, __privateGet(this, _pingIntervalMs) - idleMs);
  } else {
    __privateSet(this, _pingedAtMs, nowMs);
    this.request('{"type":"ping"}', () => {
    });
    __privateMethod(this, _Link_instances, watch_fn).call(this, pongTimeoutMs);
  }
};
/** The other side is not there; nor would it answer a closing handshake, so that is not waited for. */
fail_fn = function(reason) {
  __privateGet(this, _socket).close();
  __privateMethod(this, _Link_instances, end_fn).call(this, { code: 1006, reason });
};
end_fn = function(reason) {
  if (__privateGet(this, _ended)) return;
  __privateSet(this, _ended, true);
  __privateGet(this, _timer).clear();
  __privateGet(this, _owner).ended(this, reason);
  __privateMethod(this, _Link_instances, abandon_fn).call(this);
};
abandon_fn = function() {
  const unanswered = [...__privateGet(this, _waiting).values()];
  __privateGet(this, _waiting).clear();
  for (const { answered } of unanswered) answered(void 0);
};
function parse(data) {
  try {
    const value = JSON.parse(String(data));
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

// src/client/settings.ts
var defaults = {
  backoffMs: 1e3,
  maxBackoffMs: 3e4,
  connectTimeoutMs: 1e4,
  pongTimeoutMs: 1e4,
  answerTimeoutMs: 3e4,
  stableMs: 5e3,
  maxQueued: 1e3,
  maxQueuedBytes: 1048576
};
function settingsOf(options) {
  return { ...defaults, ...options };
}
function backoffMs({ backoffMs: firstMs, maxBackoffMs }, attempt, random) {
  return random * Math.min(maxBackoffMs, firstMs * 2 ** attempt);
}

// src/client/outbox.ts
var WINDOW = 16;
var MAX_ATTEMPTS = 8;
var FIRST_PACE_MS = 10;
var LAST_PACE_MS = 1;
var PACE_SHRINK = 0.95;
var REF_BYTES = 32;
var _settings2, _platform3, _pause, _entries, _bytes, _onTheirWay, _link, _overlapping, _paceMs, _Outbox_instances, pump_fn, pumpAfter_fn, answered_fn, failed_fn, settle_fn;
var Outbox = class {
  constructor(settings, platform) {
    __privateAdd(this, _Outbox_instances);
    __privateAdd(this, _settings2);
    __privateAdd(this, _platform3);
    __privateAdd(this, _pause);
    __privateAdd(this, _entries, /* @__PURE__ */ new Set());
    __privateAdd(this, _bytes, 0);
    __privateAdd(this, _onTheirWay, 0);
    __privateAdd(this, _link);
    __privateAdd(this, _overlapping, false);
    __privateAdd(this, _paceMs, 0);
    __privateSet(this, _settings2, settings);
    __privateSet(this, _platform3, platform);
    __privateSet(this, _pause, new Timer(platform));
  }
  /** Sends a command as soon as that is possible, and resolves with its `ok`.
   * @throws {ClientError} what the gateway says, `queue_full`, `too_large` or `closed`. */
  add(sending) {
    const { maxQueued, maxQueuedBytes } = __privateGet(this, _settings2);
    const bytes = new TextEncoder().encode(sending.command).length;
    return new Promise((resolve, reject) => {
      if (__privateGet(this, _entries).size >= maxQueued || __privateGet(this, _bytes) + bytes > maxQueuedBytes) {
        const message = `${__privateGet(this, _entries).size} commands (${__privateGet(this, _bytes)} bytes) are unanswered.`;
        return reject(new ClientError("queue_full", message, { retryable: true }));
      }
      __privateGet(this, _entries).add({ ...sending, bytes, resolve, reject, attempts: 0, onItsWay: false, paceMs: 0 });
      __privateSet(this, _bytes, __privateGet(this, _bytes) + bytes);
      __privateMethod(this, _Outbox_instances, pump_fn).call(this);
    });
  }
  /** From now on commands leave by this link. `overlapping`: there is another one still, or already. */
  use(link, overlapping) {
    __privateSet(this, _link, link);
    __privateSet(this, _overlapping, overlapping);
    __privateMethod(this, _Outbox_instances, pump_fn).call(this);
  }
  /** This link is gone. Where it was the one that is used, commands wait for the next. */
  left(link) {
    this.use(__privateGet(this, _link) === link ? void 0 : __privateGet(this, _link), false);
  }
  /** Rejects everything that waits. */
  close(error) {
    __privateSet(this, _link, void 0);
    __privateGet(this, _pause).clear();
    for (const entry of __privateGet(this, _entries)) __privateMethod(this, _Outbox_instances, settle_fn).call(this, entry).reject(error);
  }
};
_settings2 = new WeakMap();
_platform3 = new WeakMap();
_pause = new WeakMap();
_entries = new WeakMap();
_bytes = new WeakMap();
_onTheirWay = new WeakMap();
_link = new WeakMap();
_overlapping = new WeakMap();
_paceMs = new WeakMap();
_Outbox_instances = new WeakSet();
pump_fn = function() {
  const link = __privateGet(this, _link);
  if (link === void 0 || __privateGet(this, _pause).isSet) return;
  for (const entry of __privateGet(this, _entries)) {
    if (__privateGet(this, _onTheirWay) >= WINDOW) return;
    if (entry.onItsWay || entry.alone && __privateGet(this, _overlapping)) continue;
    if (entry.bytes + REF_BYTES > link.maxMessageBytes) {
      const message = `${entry.bytes} bytes: the gateway takes ${link.maxMessageBytes}.`;
      __privateMethod(this, _Outbox_instances, settle_fn).call(this, entry).reject(new ClientError("too_large", message));
      continue;
    }
    entry.onItsWay = true;
    entry.paceMs = __privateGet(this, _paceMs);
    __privateSet(this, _onTheirWay, __privateGet(this, _onTheirWay) + 1);
    link.request(entry.command, (answer) => __privateMethod(this, _Outbox_instances, answered_fn).call(this, entry, answer));
    if (__privateGet(this, _paceMs) > 0) {
      __privateMethod(this, _Outbox_instances, pumpAfter_fn).call(this, __privateGet(this, _paceMs));
      return;
    }
  }
};
pumpAfter_fn = function(ms) {
  __privateGet(this, _pause).set(ms, () => __privateMethod(this, _Outbox_instances, pump_fn).call(this));
};
answered_fn = function(entry, answer) {
  if (!__privateGet(this, _entries).has(entry)) return;
  entry.onItsWay = false;
  __privateSet(this, _onTheirWay, __privateGet(this, _onTheirWay) - 1);
  if (answer?.type === "ok") {
    __privateSet(this, _paceMs, __privateGet(this, _paceMs) > LAST_PACE_MS ? __privateGet(this, _paceMs) * PACE_SHRINK : 0);
    __privateMethod(this, _Outbox_instances, settle_fn).call(this, entry).resolve(answer);
  } else if (answer !== void 0) {
    __privateMethod(this, _Outbox_instances, failed_fn).call(this, entry, errorOf(answer));
  }
  __privateMethod(this, _Outbox_instances, pump_fn).call(this);
};
failed_fn = function(entry, error) {
  const { retryAfterMs = 0 } = error;
  let waitMs = backoffMs(__privateGet(this, _settings2), entry.attempts, __privateGet(this, _platform3).random());
  if (error.code === "rate_limited") {
    if (entry.paceMs >= __privateGet(this, _paceMs))
      __privateSet(this, _paceMs, Math.max(FIRST_PACE_MS, retryAfterMs, entry.paceMs * 2));
    waitMs = __privateGet(this, _paceMs);
  } else if (!error.retryable || ++entry.attempts === MAX_ATTEMPTS) {
    __privateMethod(this, _Outbox_instances, settle_fn).call(this, entry).reject(error);
    return;
  }
  __privateMethod(this, _Outbox_instances, pumpAfter_fn).call(this, Math.max(retryAfterMs, waitMs));
};
settle_fn = function(entry) {
  __privateGet(this, _entries).delete(entry);
  __privateSet(this, _bytes, __privateGet(this, _bytes) - entry.bytes);
  if (entry.onItsWay) __privateSet(this, _onTheirWay, __privateGet(this, _onTheirWay) - 1);
  return entry;
};

// src/client/platform.ts
var MAX_TIMER_MS = 2 ** 31 - 1;
var KEY_BYTES = 16;
var system = {
  now: () => performance.now(),
  after(ms, action) {
    const timer = setTimeout(action, Math.min(ms, MAX_TIMER_MS));
    return () => clearTimeout(timer);
  },
  random: Math.random,
  // Not randomUUID, which browsers have on secure pages only.
  newKey: () => Array.from(crypto.getRandomValues(new Uint8Array(KEY_BYTES)), (byte) => byte.toString(36)).join(""),
  onOnline(action) {
    const { addEventListener, removeEventListener } = globalThis;
    addEventListener?.call(globalThis, "online", action);
    return () => removeEventListener?.call(globalThis, "online", action);
  }
};

// src/client/stream.ts
var MAX_OWN = 1e3;
var MAX_SEEN = 1e4;
var _owner2, _deliver, _source, _next, _seen, _known, _own, _lived, _Stream_instances, goOver_fn, take_fn, tellGap_fn;
var Stream = class {
  constructor(channel, position, owner, deliver) {
    __privateAdd(this, _Stream_instances);
    __publicField(this, "channel");
    /** Where the application stands in a durable channel. Once known it moves by messages and gaps alone. */
    __publicField(this, "position");
    __privateAdd(this, _owner2);
    __privateAdd(this, _deliver);
    /** Whose messages count. */
    __privateAdd(this, _source);
    /** While it goes over: whose messages will count, what it brought that the old link has not, and whether both have
     * brought the same message. */
    __privateAdd(this, _next);
    /** While it goes over: names of what the old link brought that the new one has not; undefined stands for messages
     * without a name, of either. */
    __privateAdd(this, _seen);
    /** After a move: names of messages that the new link may bring once more. */
    __privateAdd(this, _known);
    /** Names of the last messages that this client published and does not want. The gateway leaves them out on the
     * connection they came from, but not in a history, nor on another connection. */
    __privateAdd(this, _own, /* @__PURE__ */ new Set());
    /** It was subscribed before, so that something can have been missed. */
    __privateAdd(this, _lived, false);
    this.channel = channel;
    this.position = position;
    __privateSet(this, _owner2, owner);
    __privateSet(this, _deliver, deliver);
  }
  /** A move begins: from now on it is kept in mind what comes. The new link must bring nothing of before. */
  expectMove() {
    __privateSet(this, _seen, /* @__PURE__ */ new Set());
  }
  /** It is being subscribed on this link, with its position. Where another one brings its messages, that one counts
   * until it is left. */
  begin(link) {
    const source = { link, after: this.position, live: false };
    if (!__privateGet(this, _source)?.live) __privateSet(this, _source, { ...source, seamless: false });
    else if (__privateGet(this, _source).link !== link)
      __privateSet(this, _next, { ...source, seamless: true, held: /* @__PURE__ */ new Map(), met: false });
  }
  /** It is subscribed on this link. */
  subscribed(link, { recovered, reason, position }) {
    const moving = __privateGet(this, _next)?.link === link;
    const source = moving ? __privateGet(this, _next) : __privateGet(this, _source);
    if (source?.link !== link || source.live) return;
    const hasHistory = recovered !== void 0 || position !== void 0;
    if (!hasHistory) this.position = void 0;
    else if (source.after === void 0 || recovered === false) this.position = position;
    const couldMiss = __privateGet(this, _lived) || source.after !== void 0;
    if (!(recovered ?? source.seamless) && couldMiss) __privateMethod(this, _Stream_instances, tellGap_fn).call(this, reason ?? "reconnect", position);
    if (recovered && !moving) __privateGet(this, _owner2).emit("recovery", { channel: this.channel ?? "" });
    source.live = true;
    __privateSet(this, _lived, true);
    if (moving && recovered === false) __privateMethod(this, _Stream_instances, goOver_fn).call(this);
  }
  /** Whether it is subscribed on this link. */
  isLive(link) {
    return [__privateGet(this, _source), __privateGet(this, _next)].some((source) => source?.link === link && source.live);
  }
  /** This client has published the message and does not want it. */
  own({ id, position = id }) {
    if (position !== void 0) addUpTo(MAX_OWN, __privateGet(this, _own), position);
  }
  /** Takes a message or a gap from any link. */
  receive(link, item) {
    const next = __privateGet(this, _next);
    const name = nameOf(item);
    if (link === __privateGet(this, _source)?.link) {
      if (__privateGet(this, _source).live) __privateMethod(this, _Stream_instances, take_fn).call(this, item);
    } else if (link === next?.link) {
      if (name !== void 0 && __privateGet(this, _seen)?.delete(name)) next.met = true;
      else if (name === void 0 && item.type === "message") __privateGet(this, _seen)?.add(name);
      else next.held.set(name ?? item, item);
    }
  }
  /** The link is gone. `emptied`: it had brought everything that the next one was not there for. */
  left(link, emptied) {
    const next = __privateGet(this, _next);
    if (link !== __privateGet(this, _source)?.link || next === void 0) {
      if (link === __privateGet(this, _source)?.link) __privateSet(this, _source, void 0);
      __privateSet(this, _next, __privateSet(this, _seen, void 0));
      return;
    }
    if (next.after === void 0 && (__privateGet(this, _seen)?.has(void 0) || !(emptied || next.met))) {
      next.seamless = false;
      if (next.live) __privateMethod(this, _Stream_instances, tellGap_fn).call(this, "reconnect", void 0);
    }
    __privateMethod(this, _Stream_instances, goOver_fn).call(this);
  }
};
_owner2 = new WeakMap();
_deliver = new WeakMap();
_source = new WeakMap();
_next = new WeakMap();
_seen = new WeakMap();
_known = new WeakMap();
_own = new WeakMap();
_lived = new WeakMap();
_Stream_instances = new WeakSet();
/** From now on the new link counts. */
goOver_fn = function() {
  const next = __privateGet(this, _next);
  __privateSet(this, _source, next);
  __privateSet(this, _next, void 0);
  __privateSet(this, _known, __privateGet(this, _seen));
  __privateSet(this, _seen, void 0);
  for (const item of next?.held.values() ?? []) __privateMethod(this, _Stream_instances, take_fn).call(this, item);
};
take_fn = function(item) {
  const { type, ...rest } = item;
  if (type === "gap") {
    this.position = item.position ?? this.position;
    __privateGet(this, _owner2).emit("gap", rest);
    return;
  }
  const name = nameOf(item);
  if (name !== void 0 && __privateGet(this, _known)?.has(name)) return;
  if (name !== void 0 && __privateGet(this, _next)?.held.delete(name)) __privateGet(this, _next).met = true;
  else if (__privateGet(this, _seen) !== void 0) addUpTo(MAX_SEEN, __privateGet(this, _seen), name);
  this.position = item.position ?? this.position;
  if (name !== void 0 && __privateGet(this, _own).delete(name)) return;
  __privateSet(this, _known, void 0);
  __privateGet(this, _deliver).call(this, rest);
};
tellGap_fn = function(reason, position) {
  const where = this.channel === void 0 ? { direct: true } : { channel: this.channel };
  __privateGet(this, _owner2).emit("gap", { ...where, reason, ...position !== void 0 && { position } });
};
function addUpTo(max, latest, value) {
  latest.add(value);
  for (const oldest of latest) {
    if (latest.size <= max) return;
    latest.delete(oldest);
  }
}
function nameOf(item) {
  return item.type === "message" ? item.position ?? item.id : void 0;
}

// src/client/subscriptions.ts
var MAX_CHANNELS = 1e3;
var COMMAND_BYTES = 96;
var _settings3, _platform4, _events, _entries2, _changed, _link2, _attempt, _retryTimer, _Subscriptions_instances, newEntry_fn, change_fn, askForAll_fn, decided_fn, forget_fn;
var Subscriptions = class {
  constructor(settings, platform, events) {
    __privateAdd(this, _Subscriptions_instances);
    __privateAdd(this, _settings3);
    __privateAdd(this, _platform4);
    __privateAdd(this, _events);
    __privateAdd(this, _entries2, /* @__PURE__ */ new Map());
    /** Those of which the gateway has to be told something. */
    __privateAdd(this, _changed, /* @__PURE__ */ new Set());
    __privateAdd(this, _link2);
    /** Commands that failed in a row. */
    __privateAdd(this, _attempt, 0);
    __privateAdd(this, _retryTimer);
    __privateSet(this, _settings3, settings);
    __privateSet(this, _platform4, platform);
    __privateSet(this, _events, events);
    __privateSet(this, _retryTimer, new Timer(platform));
  }
  /** Adds a handler to a channel. The gateway is told at the end of this turn, of all changes together. */
  add(name, handle, after) {
    const entry = __privateGet(this, _entries2).get(name) ?? __privateMethod(this, _Subscriptions_instances, newEntry_fn).call(this, name, after);
    const handler = { handle };
    entry.handlers.add(handler);
    const unsubscribe = () => {
      if (entry.handlers.delete(handler) && entry.handlers.size === 0) __privateMethod(this, _Subscriptions_instances, change_fn).call(this, entry);
    };
    return {
      channel: name,
      ready: entry.ready,
      get position() {
        return entry.stream.position;
      },
      unsubscribe,
      [Symbol.dispose]: unsubscribe
    };
  }
  /** The stream of a channel that is subscribed to, or to be. */
  stream(name) {
    return __privateGet(this, _entries2).get(name)?.stream;
  }
  *streams() {
    for (const { stream } of __privateGet(this, _entries2).values()) yield stream;
  }
  /** From now on this connection is asked; first, for everything. Resolves when that is answered. */
  use(link) {
    __privateSet(this, _link2, link);
    return new Promise((resolve) => __privateMethod(this, _Subscriptions_instances, askForAll_fn).call(this, resolve));
  }
  /** Tells the gateway of all changes so far, in as few commands as can be. */
  flush(answered = () => {
  }) {
    const link = __privateGet(this, _link2);
    const entries = [...__privateGet(this, _changed)];
    __privateGet(this, _changed).clear();
    const leave = entries.filter(({ handlers }) => handlers.size === 0);
    for (const entry of leave) {
      __privateMethod(this, _Subscriptions_instances, forget_fn).call(this, entry);
      entry.isRefused(new ClientError("not_subscribed", "The channel was left."));
    }
    if (link === void 0) return;
    let unanswered = 1;
    const done = () => {
      unanswered -= 1;
      if (unanswered === 0) answered();
    };
    const left = leave.filter((entry) => entry.link === link);
    for (const { texts } of chunks(left, ({ name }) => name, link)) {
      link.request(`{"type":"unsubscribe","channels":[${texts.join()}]}`, () => {
      });
    }
    const enter = entries.filter((entry) => entry.handlers.size > 0 && entry.link !== link);
    const itemOf = ({ name, stream }) => ({ channel: name, after: stream.position });
    for (const { chunk, texts } of chunks(enter, itemOf, link)) {
      unanswered += 1;
      for (const entry of chunk) {
        entry.link = link;
        entry.stream.begin(link);
      }
      link.request(`{"type":"subscribe","channels":[${texts.join()}]}`, (answer) => {
        if (answer !== void 0) __privateMethod(this, _Subscriptions_instances, decided_fn).call(this, link, chunk, answer);
        done();
      });
    }
    done();
  }
  /** The gateway does not let this client have the channel. Its handlers will hear nothing more. */
  refuse(name, error) {
    const entry = __privateGet(this, _entries2).get(name);
    if (entry === void 0) return;
    __privateMethod(this, _Subscriptions_instances, forget_fn).call(this, entry);
    entry.isRefused(error);
    __privateGet(this, _events).emit("error", error);
  }
  /** Forgets everything, for good. */
  close(error) {
    __privateSet(this, _link2, void 0);
    __privateGet(this, _retryTimer).clear();
    for (const { isRefused } of __privateGet(this, _entries2).values()) isRefused(error);
    __privateGet(this, _entries2).clear();
  }
};
_settings3 = new WeakMap();
_platform4 = new WeakMap();
_events = new WeakMap();
_entries2 = new WeakMap();
_changed = new WeakMap();
_link2 = new WeakMap();
_attempt = new WeakMap();
_retryTimer = new WeakMap();
_Subscriptions_instances = new WeakSet();
newEntry_fn = function(name, after) {
  let isReady = () => {
  };
  let isRefused = () => {
  };
  const ready = new Promise((resolve, reject) => {
    isReady = resolve;
    isRefused = reject;
  });
  ready.catch(() => {
  });
  const handlers = /* @__PURE__ */ new Set();
  const stream = new Stream(name, after, __privateGet(this, _events), (message) => {
    for (const { handle } of [...handlers]) __privateGet(this, _events).call(handle, message);
  });
  const entry = { name, stream, handlers, ready, isReady, isRefused, link: void 0 };
  __privateGet(this, _entries2).set(name, entry);
  __privateMethod(this, _Subscriptions_instances, change_fn).call(this, entry);
  return entry;
};
change_fn = function(entry) {
  if (__privateGet(this, _changed).size === 0) queueMicrotask(() => this.flush());
  __privateGet(this, _changed).add(entry);
};
askForAll_fn = function(answered) {
  for (const entry of __privateGet(this, _entries2).values()) __privateGet(this, _changed).add(entry);
  this.flush(answered);
};
decided_fn = function(link, entries, answer) {
  const results = answer.channels ?? [];
  const byName = new Map(results.map((result) => [result.channel, result]));
  for (const entry of entries) {
    const { name } = entry;
    if (__privateGet(this, _entries2).get(name) !== entry) continue;
    const result = byName.get(name);
    const body = answer.type === "error" ? answer : result?.error;
    if (body === void 0) {
      __privateSet(this, _attempt, 0);
      entry.stream.subscribed(link, result ?? {});
      entry.isReady();
      continue;
    }
    const error = errorOf(body, name);
    if (!error.retryable) {
      this.refuse(name, error);
      continue;
    }
    entry.link = void 0;
    const waitMs = backoffMs(__privateGet(this, _settings3), __privateWrapper(this, _attempt)._++, __privateGet(this, _platform4).random());
    __privateGet(this, _retryTimer).set(Math.max(error.retryAfterMs ?? 0, waitMs), () => __privateMethod(this, _Subscriptions_instances, askForAll_fn).call(this));
    __privateGet(this, _events).emit("error", error);
  }
};
forget_fn = function(entry) {
  if (__privateGet(this, _entries2).get(entry.name) === entry) __privateGet(this, _entries2).delete(entry.name);
};
function* chunks(entries, itemOf, { maxMessageBytes }) {
  let chunk = [];
  let texts = [];
  let bytes = COMMAND_BYTES;
  for (const entry of entries) {
    const text = JSON.stringify(itemOf(entry));
    const more = text.length + 1;
    if (chunk.length === MAX_CHANNELS || bytes + more > maxMessageBytes && chunk.length > 0) {
      yield { chunk, texts };
      chunk = [];
      texts = [];
      bytes = COMMAND_BYTES;
    }
    chunk.push(entry);
    texts.push(text);
    bytes += more;
  }
  if (chunk.length > 0) yield { chunk, texts };
}

// src/client/tokens.ts
var UNPROVEN_MS = 6e4;
var RENEW_SHARE = 0.7;
var RENEW_JITTER_SHARE = 0.15;
var _fetch, _settings4, _platform5, _renew, _renewal, _token, _freshUntilMs, _attempt2;
var Tokens = class {
  /** `renew` is called when a token is needed before the one in use expires. */
  constructor(fetch, settings, platform, renew) {
    __privateAdd(this, _fetch);
    __privateAdd(this, _settings4);
    __privateAdd(this, _platform5);
    __privateAdd(this, _renew);
    __privateAdd(this, _renewal);
    __privateAdd(this, _token);
    __privateAdd(this, _freshUntilMs, 0);
    __privateAdd(this, _attempt2, 0);
    __privateSet(this, _fetch, fetch);
    __privateSet(this, _settings4, settings);
    __privateSet(this, _platform5, platform);
    __privateSet(this, _renew, renew);
    __privateSet(this, _renewal, new Timer(platform));
  }
  /** The token that holds, or a new one. @throws {ClientError} `token` where the application gives none in time. */
  async current() {
    const isFresh = __privateGet(this, _token) !== void 0 && __privateGet(this, _platform5).now() < __privateGet(this, _freshUntilMs);
    return isFresh ? __privateGet(this, _token) ?? "" : this.next();
  }
  /** A new token. @throws {ClientError} `token` */
  async next() {
    const timer = new Timer(__privateGet(this, _platform5));
    try {
      __privateSet(this, _token, await new Promise((resolve, reject) => {
        timer.set(__privateGet(this, _settings4).connectTimeoutMs, () => reject("it takes too long"));
        Promise.resolve(__privateGet(this, _fetch).call(this)).then(resolve, reject);
      }));
    } catch (cause) {
      throw new ClientError("token", `token() failed: ${cause}`, { retryable: true, cause });
    } finally {
      timer.clear();
    }
    __privateSet(this, _freshUntilMs, __privateGet(this, _platform5).now() + UNPROVEN_MS);
    return __privateGet(this, _token);
  }
  /** A gateway has accepted the token, for so long. */
  accepted(expiresInMs = Infinity) {
    const freshMs = expiresInMs * (RENEW_SHARE + RENEW_JITTER_SHARE * __privateGet(this, _platform5).random());
    __privateSet(this, _attempt2, 0);
    __privateSet(this, _freshUntilMs, __privateGet(this, _platform5).now() + freshMs);
    if (freshMs < Infinity) __privateGet(this, _renewal).set(freshMs, __privateGet(this, _renew));
  }
  /** The token is of no use any more: the next one is a new one. */
  refused() {
    __privateSet(this, _token, void 0);
  }
  /** A renewal has failed: it is tried again a little later, until the gateway closes the connection. */
  renewLater() {
    __privateGet(this, _renewal).set(backoffMs(__privateGet(this, _settings4), __privateWrapper(this, _attempt2)._++, __privateGet(this, _platform5).random()), __privateGet(this, _renew));
  }
  /** No connection, no renewals. */
  stop() {
    __privateGet(this, _renewal).clear();
  }
};
_fetch = new WeakMap();
_settings4 = new WeakMap();
_platform5 = new WeakMap();
_renew = new WeakMap();
_renewal = new WeakMap();
_token = new WeakMap();
_freshUntilMs = new WeakMap();
_attempt2 = new WeakMap();

// src/client/client.ts
var LEAVE_SHARE = 0.8;
var OPEN_SHARE = 0.5;
var MAX_TRIES = 8;
var ASK_AGAIN_MS = 100;
function connect(options) {
  return new Client(options, system);
}
var _settings5, _platform6, _events2, _outbox, _tokens, _owner3, _offOnline, _onAbort, _state, _user, _link3, _opening, _leaving, _going, _gone2, _opens, _attempt3, _retryTimer2, _stableTimer, _leaveTimer, _pauseTimer, _direct, _subscriptions, _closedBy, _closing, _Client_instances, open_fn, welcomed_fn, goOver_fn2, pause_fn, leaveBy_fn, leave_fn, left_fn, ended_fn, retry_fn, stay_fn, openAfter_fn, goodbye_fn, renewToken_fn, close_fn, setState_fn, received_fn, fail_fn2, streams_fn, ask_fn;
var Client = class {
  /** Use {@link connect}. Tests bring a platform of their own. */
  constructor(options, platform) {
    __privateAdd(this, _Client_instances);
    __privateAdd(this, _settings5);
    __privateAdd(this, _platform6);
    __privateAdd(this, _events2, new Events());
    __privateAdd(this, _outbox);
    __privateAdd(this, _tokens);
    __privateAdd(this, _owner3);
    __privateAdd(this, _offOnline);
    __privateAdd(this, _onAbort, () => void __privateMethod(this, _Client_instances, close_fn).call(this, { code: 1e3, reason: "aborted" }));
    __privateAdd(this, _state, "connecting");
    __privateAdd(this, _user);
    /** The connection that is used. */
    __privateAdd(this, _link3);
    /** The one that is to be used next. */
    __privateAdd(this, _opening);
    /** The one that was used before, and is open for what is still on its way. */
    __privateAdd(this, _leaving);
    /** What the gateway of the connection that is used said; undefined where it wants nothing. */
    __privateAdd(this, _going);
    /** The same of the connection that was used before. */
    __privateAdd(this, _gone2);
    /** Counts the tries to open, so that one that was overtaken notices. */
    __privateAdd(this, _opens, 0);
    __privateAdd(this, _attempt3, 0);
    __privateAdd(this, _retryTimer2);
    __privateAdd(this, _stableTimer);
    __privateAdd(this, _leaveTimer);
    __privateAdd(this, _pauseTimer);
    __privateAdd(this, _direct, new Stream(
      void 0,
      void 0,
      __privateGet(this, _events2),
      (message) => __privateGet(this, _events2).emit("direct", message)
    ));
    __privateAdd(this, _subscriptions);
    __privateAdd(this, _closedBy);
    __privateAdd(this, _closing);
    const settings = settingsOf(options);
    const { token, signal } = options;
    __privateSet(this, _settings5, settings);
    __privateSet(this, _platform6, platform);
    __privateSet(this, _retryTimer2, new Timer(platform));
    __privateSet(this, _stableTimer, new Timer(platform));
    __privateSet(this, _leaveTimer, new Timer(platform));
    __privateSet(this, _pauseTimer, new Timer(platform));
    __privateSet(this, _subscriptions, new Subscriptions(settings, platform, __privateGet(this, _events2)));
    __privateSet(this, _outbox, new Outbox(settings, platform));
    __privateSet(this, _tokens, token && new Tokens(token, settings, platform, () => void __privateMethod(this, _Client_instances, renewToken_fn).call(this)));
    __privateSet(this, _owner3, {
      welcomed: (link, welcome) => __privateMethod(this, _Client_instances, welcomed_fn).call(this, link, welcome),
      received: (link, frame) => __privateMethod(this, _Client_instances, received_fn).call(this, link, frame),
      ended: (link, reason) => __privateMethod(this, _Client_instances, ended_fn).call(this, link, reason)
    });
    __privateSet(this, _offOnline, platform.onOnline(() => {
      if (__privateGet(this, _retryTimer2).isSet && __privateGet(this, _link3) === void 0) void __privateMethod(this, _Client_instances, open_fn).call(this);
    }));
    signal?.addEventListener("abort", __privateGet(this, _onAbort));
    if (signal?.aborted) __privateGet(this, _onAbort).call(this);
    else void __privateMethod(this, _Client_instances, open_fn).call(this);
  }
  get state() {
    return __privateGet(this, _state);
  }
  /** Who the gateway takes this client for; undefined until it has said so. */
  get user() {
    return __privateGet(this, _user);
  }
  /** Listens to an event, and returns what ends that. */
  on(event, listener) {
    return __privateGet(this, _events2).on(event, listener);
  }
  /** A channel. Costs nothing until it is used. @throws {ClientError} `bad_name` */
  channel(name) {
    if (!isName(name))
      throw new ClientError("bad_name", `"${name}" is no name: 1 to 128 of A-Z a-z 0-9 . _ ~ @ : / -`);
    return {
      name,
      subscribe: (handle, { after } = {}) => {
        if (__privateGet(this, _closedBy)) throw __privateGet(this, _closedBy);
        return __privateGet(this, _subscriptions).add(name, handle, after);
      },
      publish: async (data, { key = __privateGet(this, _platform6).newKey(), echo = true, traceparent } = {}) => {
        const command = JSON.stringify({ type: "publish", channel: name, key, echo, traceparent, data });
        const published = publishedOf(await __privateMethod(this, _Client_instances, ask_fn).call(this, { command, alone: !echo }));
        if (!echo) __privateGet(this, _subscriptions).stream(name)?.own(published);
        return published;
      },
      presence: async () => {
        const command = JSON.stringify({ type: "presence", channel: name });
        const { members, total } = await __privateMethod(this, _Client_instances, ask_fn).call(this, { command });
        return { members, total };
      }
    };
  }
  /** Sends to every connection of a user, or keeps the message until there is a connection. */
  async sendTo(user, data, options = {}) {
    const { key = __privateGet(this, _platform6).newKey(), traceparent } = options;
    const command = JSON.stringify({ type: "send", user, key, traceparent, data });
    return publishedOf(await __privateMethod(this, _Client_instances, ask_fn).call(this, { command }));
  }
  /** Closes for good. What is unanswered is rejected as `closed`. */
  close() {
    return __privateMethod(this, _Client_instances, close_fn).call(this, { code: 1e3, reason: "closed by the application" });
  }
  [Symbol.asyncDispose]() {
    return this.close();
  }
};
_settings5 = new WeakMap();
_platform6 = new WeakMap();
_events2 = new WeakMap();
_outbox = new WeakMap();
_tokens = new WeakMap();
_owner3 = new WeakMap();
_offOnline = new WeakMap();
_onAbort = new WeakMap();
_state = new WeakMap();
_user = new WeakMap();
_link3 = new WeakMap();
_opening = new WeakMap();
_leaving = new WeakMap();
_going = new WeakMap();
_gone2 = new WeakMap();
_opens = new WeakMap();
_attempt3 = new WeakMap();
_retryTimer2 = new WeakMap();
_stableTimer = new WeakMap();
_leaveTimer = new WeakMap();
_pauseTimer = new WeakMap();
_direct = new WeakMap();
_subscriptions = new WeakMap();
_closedBy = new WeakMap();
_closing = new WeakMap();
_Client_instances = new WeakSet();
open_fn = async function() {
  __privateGet(this, _retryTimer2).clear();
  const open = ++__privateWrapper(this, _opens)._;
  let token;
  try {
    token = await __privateGet(this, _tokens)?.current();
  } catch (error) {
    if (open !== __privateGet(this, _opens)) return;
    __privateMethod(this, _Client_instances, fail_fn2).call(this, error);
    return __privateMethod(this, _Client_instances, retry_fn).call(this, { code: 1006, reason: String(error) });
  }
  if (open !== __privateGet(this, _opens)) return;
  try {
    const query = `moves=true${__privateGet(this, _going)?.mayStay ? "&moving=true" : ""}`;
    __privateSet(this, _opening, new Link(__privateGet(this, _settings5), __privateGet(this, _platform6), token, query, __privateGet(this, _owner3)));
  } catch (cause) {
    __privateMethod(this, _Client_instances, fail_fn2).call(this, new ClientError("connect", String(cause), { cause }));
    void __privateMethod(this, _Client_instances, close_fn).call(this, { code: 1006, reason: String(cause) });
  }
};
welcomed_fn = function(link, welcome) {
  const old = __privateGet(this, _link3);
  __privateMethod(this, _Client_instances, leave_fn).call(this, false);
  __privateSet(this, _opening, void 0);
  __privateSet(this, _link3, link);
  __privateSet(this, _leaving, old);
  __privateSet(this, _gone2, __privateGet(this, _going));
  __privateSet(this, _going, void 0);
  __privateSet(this, _user, welcome.user);
  __privateGet(this, _tokens)?.accepted(welcome.tokenExpiresInMs);
  __privateGet(this, _stableTimer).set(__privateGet(this, _settings5).stableMs, () => {
    __privateSet(this, _attempt3, 0);
  });
  if (__privateGet(this, _state) !== "open") __privateMethod(this, _Client_instances, setState_fn).call(this, "open");
  __privateGet(this, _outbox).use(old, true);
  void __privateMethod(this, _Client_instances, goOver_fn2).call(this, link, old);
};
goOver_fn2 = async function(link, old) {
  if (old !== void 0) {
    for (const stream of __privateMethod(this, _Client_instances, streams_fn).call(this)) stream.expectMove();
    __privateMethod(this, _Client_instances, leaveBy_fn).call(this, Infinity);
    while (link === __privateGet(this, _link3) && old === __privateGet(this, _leaving) && !await caughtUp(link)) await __privateMethod(this, _Client_instances, pause_fn).call(this, link);
  }
  if (link !== __privateGet(this, _link3)) return;
  __privateGet(this, _direct).begin(link);
  __privateGet(this, _direct).subscribed(link, {});
  await __privateGet(this, _subscriptions).use(link);
  if (link !== __privateGet(this, _link3)) return;
  __privateGet(this, _outbox).use(link, __privateGet(this, _leaving) !== void 0);
  while (link === __privateGet(this, _link3) && __privateGet(this, _leaving) !== void 0) {
    if ([...__privateMethod(this, _Client_instances, streams_fn).call(this)].every((stream) => stream.isLive(link))) {
      __privateMethod(this, _Client_instances, leaveBy_fn).call(this, __privateGet(this, _settings5).pongTimeoutMs);
      if (await caughtUp(__privateGet(this, _leaving)) && __privateGet(this, _leaving)?.isIdle) return __privateMethod(this, _Client_instances, leave_fn).call(this, true);
    }
    await __privateMethod(this, _Client_instances, pause_fn).call(this, link);
  }
};
pause_fn = async function(link) {
  if (link !== __privateGet(this, _link3)) return;
  await new Promise((resolve) => __privateGet(this, _pauseTimer).set(ASK_AGAIN_MS, resolve));
};
/** The old connection is left after so long whatever it may still bring, and before the gateway closes it. */
leaveBy_fn = function(ms) {
  const { mayStay, untilMs } = __privateGet(this, _gone2) ?? {};
  const byMs = Math.min(ms, mayStay ? Infinity : Number(untilMs) - __privateGet(this, _platform6).now());
  if (byMs < Infinity) __privateGet(this, _leaveTimer).set(byMs, () => __privateMethod(this, _Client_instances, leave_fn).call(this, false));
};
/** Leaves the connection that was used before, or notices that it is gone. */
leave_fn = function(emptied) {
  const old = __privateGet(this, _leaving);
  if (old === void 0) return;
  __privateSet(this, _leaving, void 0);
  __privateGet(this, _leaveTimer).clear();
  __privateMethod(this, _Client_instances, left_fn).call(this, old, emptied);
  void old.close();
  __privateGet(this, _events2).emit("move", { code: __privateGet(this, _gone2)?.code ?? 0 });
};
left_fn = function(link, emptied) {
  __privateGet(this, _outbox).left(link);
  for (const stream of __privateMethod(this, _Client_instances, streams_fn).call(this)) stream.left(link, emptied);
};
ended_fn = function(link, reason) {
  if (link === __privateGet(this, _leaving)) {
    __privateMethod(this, _Client_instances, leave_fn).call(this, false);
    return;
  }
  if (link === __privateGet(this, _opening)) __privateSet(this, _opening, void 0);
  if (link === __privateGet(this, _link3)) {
    const old = __privateGet(this, _leaving);
    __privateSet(this, _leaving, void 0);
    __privateGet(this, _leaveTimer).clear();
    __privateSet(this, _link3, old);
    __privateSet(this, _going, old && __privateGet(this, _gone2));
    __privateGet(this, _stableTimer).clear();
    if (old === void 0) __privateGet(this, _tokens)?.stop();
    __privateMethod(this, _Client_instances, left_fn).call(this, link, false);
    __privateGet(this, _outbox).use(old, false);
    void __privateGet(this, _subscriptions).use(old);
  }
  const action = actionAfter(reason.code);
  if (action === "refresh") __privateGet(this, _tokens)?.refused();
  const isFinal = action === "stop" || action === "refresh" && __privateGet(this, _tokens) === void 0;
  if (isFinal && !__privateGet(this, _going)?.mayStay) void __privateMethod(this, _Client_instances, close_fn).call(this, reason);
  else if (__privateGet(this, _opening) === void 0) __privateMethod(this, _Client_instances, retry_fn).call(this, reason);
  else if (__privateGet(this, _link3) === void 0) __privateMethod(this, _Client_instances, setState_fn).call(this, "reconnecting", reason);
};
/** Tries again: when the gateway said, or after a while. Who may stay does so after some tries; until then the load
 * balancer may choose another pod the next time. */
retry_fn = function(reason) {
  const going = __privateGet(this, _going);
  if (going?.mayStay) {
    const waitMs2 = __privateGet(this, _settings5).backoffMs * (0.5 + __privateGet(this, _platform6).random());
    const isLast = ++going.tries === MAX_TRIES || __privateGet(this, _platform6).now() + waitMs2 > going.untilMs;
    if (isLast) __privateMethod(this, _Client_instances, stay_fn).call(this);
    else __privateMethod(this, _Client_instances, openAfter_fn).call(this, waitMs2);
    return;
  }
  const hint = /reconnect after (\d+) ms/.exec(reason.reason)?.[1];
  const waitMs = hint ? Number(hint) : backoffMs(__privateGet(this, _settings5), __privateWrapper(this, _attempt3)._++, __privateGet(this, _platform6).random());
  __privateMethod(this, _Client_instances, openAfter_fn).call(this, waitMs);
  if (__privateGet(this, _link3) === void 0) __privateMethod(this, _Client_instances, setState_fn).call(this, "reconnecting", reason, waitMs);
};
/** Says that it has found no other pod, so that another client can be asked. A gateway that does not know the command
 * refuses it, which changes nothing. */
stay_fn = function() {
  __privateSet(this, _going, void 0);
  __privateGet(this, _link3)?.request('{"type":"stay"}', () => {
  });
};
openAfter_fn = function(ms) {
  __privateSet(this, _opens, __privateGet(this, _opens) + 1);
  __privateGet(this, _retryTimer2).set(ms, () => void __privateMethod(this, _Client_instances, open_fn).call(this));
};
/** The gateway wants this client to go. It has its reasons for the time that it names; but what is left after it must
 * be enough to open the next connection. */
goodbye_fn = function(link, { code, reconnectAfterMs, closeAfterMs, move, giveUpAfterMs }) {
  const mayStay = move === true;
  if (link !== __privateGet(this, _link3) || __privateGet(this, _going) && (mayStay || !__privateGet(this, _going).mayStay)) return;
  const forMs = mayStay ? Number(giveUpAfterMs) : Number(closeAfterMs) * LEAVE_SHARE;
  __privateSet(this, _going, { code: Number(code), mayStay, untilMs: __privateGet(this, _platform6).now() + forMs, tries: 0 });
  if (__privateGet(this, _opening) === void 0) __privateMethod(this, _Client_instances, openAfter_fn).call(this, Math.min(Number(reconnectAfterMs), forMs * OPEN_SHARE));
};
renewToken_fn = async function() {
  const link = __privateGet(this, _link3);
  const tokens = __privateGet(this, _tokens);
  try {
    const token = await tokens?.next();
    if (link !== __privateGet(this, _link3)) return;
    link?.request(JSON.stringify({ type: "refresh", token }), (answer) => {
      if (answer?.type === "ok") {
        tokens?.accepted(answer.tokenExpiresInMs);
        for (const channel of answer.left ?? []) {
          __privateGet(this, _subscriptions).refuse(
            channel,
            new ClientError("forbidden", "The new token does not allow it.", { channel })
          );
        }
      } else if (answer !== void 0) {
        tokens?.refused();
        tokens?.renewLater();
        __privateMethod(this, _Client_instances, fail_fn2).call(this, errorOf(answer));
      }
    });
  } catch (error) {
    if (link !== __privateGet(this, _link3)) return;
    tokens?.renewLater();
    __privateMethod(this, _Client_instances, fail_fn2).call(this, error);
  }
};
close_fn = async function(reason) {
  if (__privateGet(this, _closing) === void 0) {
    for (const timer of [__privateGet(this, _retryTimer2), __privateGet(this, _stableTimer), __privateGet(this, _leaveTimer), __privateGet(this, _pauseTimer)])
      timer.clear();
    __privateGet(this, _offOnline).call(this);
    __privateGet(this, _settings5).signal?.removeEventListener("abort", __privateGet(this, _onAbort));
    __privateGet(this, _tokens)?.stop();
    __privateSet(this, _opens, __privateGet(this, _opens) + 1);
    const error = new ClientError("closed", `The client is closed: ${reason.reason} (${reason.code}).`);
    __privateSet(this, _closedBy, error);
    const links = [__privateGet(this, _link3), __privateGet(this, _opening), __privateGet(this, _leaving)];
    __privateSet(this, _link3, __privateSet(this, _opening, __privateSet(this, _leaving, void 0)));
    __privateGet(this, _outbox).close(error);
    __privateSet(this, _closing, Promise.all(links.map((link) => link?.close())));
    __privateGet(this, _subscriptions).close(error);
    __privateMethod(this, _Client_instances, setState_fn).call(this, "closed", reason);
  }
  await __privateGet(this, _closing);
};
setState_fn = function(state, reason, retryInMs) {
  __privateSet(this, _state, state);
  __privateGet(this, _events2).emit("state", { state, reason, retryInMs });
};
// ── What comes ────────────────────────────────────────────────────────────────────────────────
received_fn = function(link, frame) {
  const { type, channel, direct } = frame;
  if (type === "message" || type === "gap") {
    const stream = direct ? __privateGet(this, _direct) : __privateGet(this, _subscriptions).stream(String(channel));
    stream?.receive(link, frame);
  } else if (type === "presence") {
    __privateGet(this, _events2).emit("presence", frame);
  } else if (type === "goodbye") {
    __privateMethod(this, _Client_instances, goodbye_fn).call(this, link, frame);
  } else if (type === "error") {
    __privateMethod(this, _Client_instances, fail_fn2).call(this, errorOf(frame));
  }
};
/** Tells of an error that no promise can tell. */
fail_fn2 = function(error) {
  __privateGet(this, _events2).emit("error", error);
};
streams_fn = function* () {
  yield __privateGet(this, _direct);
  yield* __privateGet(this, _subscriptions).streams();
};
ask_fn = async function(sending) {
  if (__privateGet(this, _closedBy)) throw __privateGet(this, _closedBy);
  __privateGet(this, _subscriptions).flush();
  return __privateGet(this, _outbox).add(sending);
};
async function caughtUp(link) {
  const answer = await new Promise((resolve) => link.request('{"type":"sync"}', resolve));
  return answer?.type === "ok" || answer?.retryable === false;
}
function publishedOf({ id, position, replicated }) {
  return { id, position, replicated };
}
export {
  Client,
  ClientError,
  connect
};
