import { Markdown } from "../markdown.js";
import { slot } from "../slot.js";

const SURROGATE_PAIRS = /[\ud800-\udbff][\udc00-\udfff]/g;

/** Text of the model that arrives in pieces: what an answer and a thought have in common. */
export class MessageCard {
  #markdown;
  #length = 0;

  constructor(element) {
    this.element = element;
    this.#markdown = new Markdown(slot(element, "text"));
  }

  /** The text's Markdown; null where the page has only what the server made of it. */
  get source() {
    return this.#markdown.source;
  }

  adopt() {
    this.#markdown.adopt();
    this.#length = codePoints(this.source ?? "");
  }

  show({ content, status, streaming }) {
    this.element.dataset.status = status ?? "";
    this.#markdown.replace(content);
    this.#length = codePoints(content);
    if (!streaming) this.#markdown.finish(content);
  }

  start() {
    this.element.dataset.status = "streaming";
  }

  /** Throws RangeError when the text before this piece is not the text the server has sent. */
  delta({ delta, offset }) {
    if (offset !== this.#length) {
      throw new RangeError(`a delta at ${offset} came to a message of ${this.#length} characters`);
    }
    this.#markdown.append(delta);
    this.#length += codePoints(delta);
  }

  final({ text, status }) {
    this.element.dataset.status = status;
    this.#markdown.finish(text);
    this.#length = codePoints(text);
  }
}

/** A loop over the characters would take twenty times as long. */
function codePoints(text) {
  return text.length - (text.match(SURROGATE_PAIRS)?.length ?? 0);
}
