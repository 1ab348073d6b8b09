/** How often, at most, finished sentences of a growing answer are read out. */
const EVERY_MS = 4_000;
/** More than this is left for the person to read at their own pace. */
const LONGEST_REST = 600;
const SENTENCES = /^[\s\S]*[.!?:…](?=\s)/;
const MARKUP = /[*_`#>|~[\]]+/g;

/** Tells people who listen what happens: changes at once, an answer's text sentence by sentence. */
export class Announcer {
  #region;
  #unread = "";
  #timer = null;

  constructor(region) {
    this.#region = region;
  }

  /** A change of state. Unread text is given up for it. */
  say(sentence) {
    this.#unread = "";
    this.#region.textContent = sentence;
  }

  /** The next piece of an answer. */
  read(text) {
    this.#unread += text;
    this.#timer ??= setTimeout(() => this.#readOut(), EVERY_MS);
  }

  /** The answer has ended: a short rest is read with the closing words. */
  end(closing) {
    clearTimeout(this.#timer);
    this.#timer = null;
    const rest = this.#unread.length > LONGEST_REST ? "" : this.#unread.replace(MARKUP, "");
    this.say(`${rest} ${closing}`.trim());
  }

  #readOut() {
    this.#timer = null;
    const finished = this.#unread.match(SENTENCES)?.[0];
    if (!finished) return;
    this.#unread = this.#unread.slice(finished.length);
    this.#region.textContent = finished.replace(MARKUP, "");
  }
}
