import { ApiError, get } from "./api.js";
import { Cursor } from "./cursor.js";
import { Socket } from "./socket.js";

/** Silence this much longer than a heartbeat means that the line is dead. */
const HEARTBEAT_GRACE_MS = 15_000;
const DEFAULT_HEARTBEAT_MS = 25_000;
/** How long the server's head may be ahead of us without a frame arriving. */
const BEHIND_MS = 5_000;
/** A pong at least this often while text streams: the flow control of servers without limits. */
const PONG_EVERY_BYTES = 64 * 1024;
/** No UTF-16 unit takes more bytes of UTF-8. */
const MOST_BYTES_PER_UNIT = 3;

/**
 * Follows one conversation from a cursor: every frame once, in order, or a snapshot instead.
 *
 * Whatever breaks that order is answered by reconnecting with the cursor of the last good frame.
 * A frame that `onFrame` cannot apply (it throws) is answered by asking for a snapshot.
 */
export class Stream {
  #convId;
  #cursor;
  #socket;
  #onHello;
  #onSnapshot;
  #onFrame;
  #lastError = null;
  #silence = null;
  #heardAt = 0;
  #behind = null;
  #heartbeatMs = DEFAULT_HEARTBEAT_MS;
  #unansweredBytes = 0;

  constructor({ convId, cursor, onHello, onSnapshot, onFrame, onStatus }) {
    this.#convId = convId;
    this.#cursor = Cursor.parse(cursor);
    this.#onHello = onHello;
    this.#onSnapshot = onSnapshot;
    this.#onFrame = onFrame;
    this.#socket = new Socket({
      address: () => this.#address(),
      explain: () => this.#explain(),
      onMessage: (text) => this.#receive(text),
      onStatus: (status) => onStatus(this.#noted(status)),
    });
  }

  open() {
    this.#socket.open();
  }

  #address() {
    const url = new URL("/ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("conv_id", this.#convId);
    if (this.#cursor) url.searchParams.set("cursor", this.#cursor);
    return url;
  }

  /** Why handshakes are refused: a sentence when coming back is useless, else null. */
  async #explain() {
    try {
      await get(`/api/timeline?conv_id=${encodeURIComponent(this.#convId)}`);
      return null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const final = [400, 403, 404].includes(error.status);
      return final ? error.message : null;
    }
  }

  #receive(text) {
    this.#heardAt = performance.now();
    this.#unansweredBytes += text.length * MOST_BYTES_PER_UNIT;
    const { event } = JSON.parse(text);
    if (typeof event.seq === "number") this.#frame(event);
    else this.#connectionFrame(event);
    if (this.#unansweredBytes >= PONG_EVERY_BYTES) this.#pong();
  }

  #connectionFrame({ type, data }) {
    if (type === "ws.hello") this.#hello(data);
    else if (type === "timeline.snapshot") this.#snapshot(data);
    else if (type === "ws.error") this.#lastError = data.message;
    else if (type === "ws.ping") {
      this.#pong();
      this.#expect(data.headSeq);
    }
  }

  #hello(data) {
    this.#lastError = null;
    this.#heartbeatMs = data.heartbeatMs ?? DEFAULT_HEARTBEAT_MS;
    this.#socket.live();
    this.#onHello(data);
    if (data.resumed) this.#expect(data.headSeq);
  }

  #snapshot(data) {
    this.#cursor = Cursor.parse(data.cursor);
    this.#onSnapshot(data);
  }

  #frame(event) {
    if (!this.#cursor || event.seq <= this.#cursor.seq) return;
    if (event.seq !== this.#cursor.seq + 1) return this.#socket.restart();
    try {
      this.#onFrame(event);
    } catch (error) {
      console.error(error);
      this.#cursor = null;
      return this.#socket.restart();
    }
    this.#cursor = this.#cursor.at(event.seq, event.stream_id);
    if (this.#behind) this.#expect(this.#behind.headSeq);
  }

  #pong() {
    this.#unansweredBytes = 0;
    this.#socket.send({ type: "ws.pong", seq: this.#cursor?.seq ?? 0 });
  }

  /** Reconnects unless, by the time allowed, frames have come towards `headSeq`. */
  #expect(headSeq) {
    clearTimeout(this.#behind?.timer);
    this.#behind = null;
    if (!this.#cursor || headSeq <= this.#cursor.seq) return;
    this.#behind = { headSeq, timer: setTimeout(() => this.#socket.restart(), BEHIND_MS) };
  }

  /** Reconnects when nothing is heard for longer than a heartbeat. */
  #listen() {
    clearTimeout(this.#silence);
    const patience = this.#heartbeatMs + HEARTBEAT_GRACE_MS;
    const left = this.#heardAt + patience - performance.now();
    if (left > 0) this.#silence = setTimeout(() => this.#listen(), left);
    else this.#socket.restart();
  }

  /** Keeps the timers in step with the connection, and the server's own words for a stop. */
  #noted(status) {
    clearTimeout(this.#silence);
    clearTimeout(this.#behind?.timer);
    this.#behind = null;
    if (status.state === "connecting" || status.state === "live") {
      this.#heardAt = performance.now();
      this.#listen();
    }
    if (status.state !== "stopped") return status;
    return { ...status, reason: this.#lastError ?? status.reason };
  }
}
