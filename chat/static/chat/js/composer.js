import { ApiError, post } from "./api.js";
import { slot } from "./slot.js";

const POSTED = "posted";

/** Where a person writes. Keeps the draft, sends it once, and never loses the words to an error. */
export class Composer {
  #form;
  #text;
  #convId;
  #onSent;
  #sending = false;
  #attempt = null;

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
    addEventListener("pageshow", () => (this.#sending = false));
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
      this.#sending = true;
      sessionStorage.setItem(POSTED, this.#text.value);
      sessionStorage.removeItem(this.#draftKey);
    }
  }

  async #send() {
    const prompt = this.#text.value;
    if (this.#sending || !prompt.trim()) return;
    this.#sending = true;
    this.#say("");
    try {
      const body = { prompt, conv_id: this.#convId };
      const answer = await post(this.#path, body, this.#keyFor(prompt));
      if (this.#text.value === prompt) this.#text.value = "";
      this.#keepDraft();
      this.#attempt = null;
      this.#onSent(answer);
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#sending = false;
    }
  }

  async #stop() {
    const stop = slot(this.#form, "stop");
    // Not `disabled`: that would take the focus away from somebody who works by keyboard.
    stop.setAttribute("aria-disabled", "true");
    try {
      await post("/api/chat/cancel", { conv_id: this.#convId });
    } catch (error) {
      stop.removeAttribute("aria-disabled");
      if (error.code !== "no_active_inference") this.#complain(error);
    }
  }

  get #path() {
    const profile = this.#form.elements.profile?.value;
    return profile ? `/chat/${encodeURIComponent(profile)}` : "/chat";
  }

  /** One key for one prompt, however often it is tried: an answer that got lost starts nothing new. */
  #keyFor(prompt) {
    const what = `${this.#path} ${prompt}`;
    if (this.#attempt?.what !== what) this.#attempt = { what, key: randomKey() };
    return { "Idempotency-Key": this.#attempt.key };
  }

  #complain(error) {
    if (!(error instanceof ApiError)) throw error;
    this.#say(error.message);
  }

  #say(sentence) {
    slot(this.#form, "error").textContent = sentence;
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
