/** Waits double from here, each with full jitter, up to the longest. */
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
/** A connection that lived this long was healthy: the next loss starts from the shortest wait. */
const HEALTHY_MS = 5_000;
const REFUSALS_BEFORE_ASKING = 3;
/** Close codes from here on mean: do not come back. */
const STOP_FROM = 4500;
const SIGNED_OUT = 4501;

const REASONS = {
  [SIGNED_OUT]: "You are signed out. Log in again to go on.",
  4503: "You no longer have access to this conversation.",
  4509: "This conversation has ended.",
  4513: "This page and the server did not understand each other. Reload the page.",
  4529: "Too many of your pages are open. Close some, then try again.",
};

/**
 * Owns one WebSocket at a time and brings it back when it is lost.
 *
 * `address()` gives the URL of each attempt, `onMessage(text)` gets what arrives, `onStatus(status)`
 * hears `{state: connecting | live | waiting | offline | stopped, until?, reason?, signedOut?}`, and
 * after three refused handshakes `explain()` is asked: a sentence means stop, null means go on trying.
 */
export class Socket {
  #address;
  #explain;
  #onMessage;
  #onStatus;
  #ws = null;
  #timer = null;
  #losses = 0;
  #refusals = 0;
  #greetedAt = null;
  #stopped = false;

  constructor({ address, explain, onMessage, onStatus }) {
    this.#address = address;
    this.#explain = explain;
    this.#onMessage = onMessage;
    this.#onStatus = onStatus;
    addEventListener("online", () => this.#nudge());
    addEventListener("offline", () => this.#goOffline());
    addEventListener("visibilitychange", () => document.hidden || this.#nudge());
    addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  /** Connects now, whatever was before: also after a stop. */
  open() {
    this.#drop();
    this.#stopped = false;
    if (!navigator.onLine) return this.#goOffline();
    this.#onStatus({ state: "connecting" });
    const ws = (this.#ws = new WebSocket(this.#address()));
    let opened = false;
    ws.onopen = () => {
      opened = true;
      this.#refusals = 0;
    };
    ws.onmessage = (event) => this.#onMessage(event.data);
    ws.onclose = (event) => {
      this.#ws = null;
      if (event.code >= STOP_FROM) this.#end(event.code);
      else if (opened) this.#retry();
      else this.#refused();
    };
  }

  /** The server has greeted us: this connection counts as live. */
  live() {
    this.#greetedAt = performance.now();
    this.#onStatus({ state: "live" });
  }

  /** Gives this connection up and comes back after a short wait. */
  restart() {
    this.#drop();
    this.#retry();
  }

  /** Ends it for good and tells the person why; `open()` may still be asked for. */
  stop(reason, { signedOut = false } = {}) {
    this.#drop();
    this.#stopped = true;
    this.#onStatus({ state: "stopped", reason, signedOut });
  }

  send(message) {
    if (this.#ws?.readyState === WebSocket.OPEN) this.#ws.send(JSON.stringify(message));
  }

  #end(code) {
    this.stop(REASONS[code] ?? `Closed (${code}).`, { signedOut: code === SIGNED_OUT });
  }

  #retry() {
    if (this.#greetedAt !== null && performance.now() - this.#greetedAt > HEALTHY_MS) {
      this.#losses = 0;
    }
    this.#greetedAt = null;
    if (!navigator.onLine) return this.#goOffline();
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#losses);
    this.#losses += 1;
    const wait = Math.random() * longest;
    this.#timer = setTimeout(() => this.open(), wait);
    this.#onStatus({ state: "waiting", until: Date.now() + wait });
  }

  async #refused() {
    this.#refusals += 1;
    if (this.#refusals < REFUSALS_BEFORE_ASKING) return this.#retry();
    this.#refusals = 0;
    const reason = await this.#explain();
    if (this.#ws || this.#stopped) return;
    if (reason === null) this.#retry();
    else this.stop(reason);
  }

  #nudge() {
    if (!this.#ws && !this.#stopped) this.open();
  }

  #goOffline() {
    if (this.#stopped) return;
    this.#drop();
    this.#onStatus({ state: "offline" });
  }

  #drop() {
    clearTimeout(this.#timer);
    if (!this.#ws) return;
    this.#ws.onopen = this.#ws.onmessage = this.#ws.onclose = null;
    this.#ws.close();
    this.#ws = null;
  }
}
