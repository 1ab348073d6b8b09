import { ApiError, post } from "./api.js";
import { slot } from "./slot.js";

const POSTED = "posted";

/**
 * Where a person writes. Keeps the draft, sends it once, and never loses the words to an error.
 *
 * A prompt is tried under one key until it is known that the server has it, also over a reload: an
 * answer that got lost, or a second click, starts nothing new.
 */
export class Composer {
  #form;
  #text;
  #convId;
  #onSent;
  #sending = false;
  #sendNext = false;
  #unreachable = false;
  #again = new Map();

  /** Without a `convId` the form posts itself and the server starts a conversation. */
  constructor(form, { convId, onSent }) {
    this.#form = form;
    this.#text = form.elements.prompt;
    this.#convId = convId;
    this.#onSent = onSent;
    this.#text.value ||= this.#keptWords();
    this.#text.addEventListener("input", () => this.#keepDraft());
    this.#text.addEventListener("keydown", (event) => this.#keydown(event));
    form.addEventListener("submit", (event) => this.#submit(event));
    addEventListener("pageshow", () => (this.#busy = false));
  }

  /** Whether an answer is being written: then it can be stopped, and what is sent waits. */
  set running(running) {
    const stop = slot(this.#form, "stop");
    if (!running && document.activeElement === stop) this.focus();
    stop.hidden = !running;
    stop.removeAttribute("aria-disabled");
  }

  focus() {
    this.#text.focus();
  }

  /** A sentence beside the box; empty when there is nothing to say. */
  say(sentence) {
    slot(this.#form, "error").textContent = sentence;
    this.#unreachable = false;
  }

  /** The server can be reached: what said otherwise is true no more. */
  reached() {
    if (this.#unreachable) this.say("");
  }

  /** The server has the prompts of these keys: if ours is one, its words need no more care. */
  taken(keys) {
    const attempt = this.#attempt;
    if (!attempt || !keys.includes(attempt.key)) return;
    this.#attempt = null;
    if (this.#text.value !== attempt.prompt) return;
    this.#text.value = "";
    this.#keepDraft();
    this.say("");
  }

  /** Sends the prompt of an inference once more, as a new one. */
  async again(prompt, inferenceId) {
    if (this.#sending || !prompt) return;
    const what = `${this.#path} ${inferenceId}`;
    if (!this.#again.has(what)) this.#again.set(what, randomKey());
    if (await this.#post(prompt, this.#again.get(what))) this.focus();
  }

  #keydown(event) {
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key !== "Enter" || event.shiftKey || composing || touchKeyboard()) return;
    event.preventDefault();
    if (this.#text.value.trim()) this.#form.requestSubmit(slot(this.#form, "send"));
  }

  #submit(event) {
    if (event.submitter === slot(this.#form, "stop")) {
      event.preventDefault();
      this.#stop();
    } else if (this.#convId) {
      event.preventDefault();
      this.#send();
    } else if (this.#sending) {
      event.preventDefault();
    } else {
      this.#busy = true;
      sessionStorage.setItem(POSTED, this.#text.value);
      sessionStorage.removeItem(this.#draftKey);
    }
  }

  async #send() {
    const prompt = this.#text.value;
    if (!prompt.trim()) return;
    if (this.#sending) {
      // Sent twice is sent once; other words follow as soon as it is known that the first arrived.
      this.#sendNext = true;
      return;
    }
    const path = this.#path;
    if (this.#attempt?.prompt !== prompt || this.#attempt.path !== path) {
      this.#attempt = { prompt, path, key: randomKey() };
    }
    const { key } = this.#attempt;
    this.#sendNext = false;
    if (await this.#post(prompt, key)) {
      this.taken([key]);
      if (this.#sendNext && this.#text.value !== prompt) await this.#send();
    }
    // Only the answer got lost: the socket has told meanwhile that the prompt is there.
    else if (this.#attempt?.key !== key) this.say("");
  }

  /** Whether the server took it. */
  async #post(prompt, key) {
    this.#busy = true;
    this.say("");
    try {
      const body = { prompt, conv_id: this.#convId };
      this.#onSent(await post(this.#path, body, { "Idempotency-Key": key }));
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message);
      this.#unreachable = error.code === "unreachable";
      return false;
    } finally {
      this.#busy = false;
    }
  }

  async #stop() {
    const stop = slot(this.#form, "stop");
    // Not `disabled`: that would take the focus away from somebody who works by keyboard.
    stop.setAttribute("aria-disabled", "true");
    try {
      await post("/api/chat/cancel", { conv_id: this.#convId });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      stop.removeAttribute("aria-disabled");
      if (error.code !== "no_active_inference") this.say(error.message);
    }
  }

  set #busy(busy) {
    this.#sending = busy;
    const send = slot(this.#form, "send");
    if (busy) send.setAttribute("aria-disabled", "true");
    else send.removeAttribute("aria-disabled");
  }

  get #path() {
    const profile = this.#form.elements.profile?.value;
    return profile ? `/chat/${encodeURIComponent(profile)}` : "/chat";
  }

  /** What is being tried and not known to have arrived: `{prompt, path, key}`. */
  get #attempt() {
    return JSON.parse(sessionStorage.getItem(this.#attemptKey));
  }

  set #attempt(attempt) {
    if (attempt) sessionStorage.setItem(this.#attemptKey, JSON.stringify(attempt));
    else sessionStorage.removeItem(this.#attemptKey);
  }

  /** The draft; or what was posted, when the server has come back with an error. */
  #keptWords() {
    const refused = slot(this.#form, "error").textContent && !this.#convId;
    return sessionStorage.getItem(refused ? POSTED : this.#draftKey) ?? "";
  }

  #keepDraft() {
    sessionStorage.setItem(this.#draftKey, this.#text.value);
  }

  get #draftKey() {
    return `draft:${this.#convId ?? ""}`;
  }

  get #attemptKey() {
    return `attempt:${this.#convId}`;
  }
}

/** On a touch keyboard Enter is the only way to a new line. */
function touchKeyboard() {
  return matchMedia("(hover: none) and (pointer: coarse)").matches;
}

/** `crypto.randomUUID` is missing on plain http; this is not. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
