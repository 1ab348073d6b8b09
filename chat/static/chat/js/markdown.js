import { Lexer, Marked } from "../vendor/marked-18.2.1/marked.esm.js";
import { addCopyButton } from "./copy.js";
import { highlight } from "./highlight.js";
import { prose } from "./prose.js";
import { soon } from "./slices.js";

/** A block so long that drawing it takes more than this is drawn less often than each frame. */
const CHEAP_MS = 8;
const PAUSE_PER_COST = 4;
/** So much of a long text is parsed and drawn at once, the rest in steps. */
const STEP_CHARACTERS = 4_000;
/** So many blocks of an answer make a part of it, as on the server (chat/markdown.py). */
const PART_BLOCKS = 32;
/** One for each of the parser's large patterns. */
const SAMPLES = ["word", "*a* `b` [c](d)", "- item\n- item", "| a |\n|---|\n| b |", "```\ncode\n```"];
const nothing = () => undefined;

/** Raw HTML and bare addresses are text; the server's parser is set up alike (chat/markdown.py). */
const { defaults } = new Marked({
  tokenizer: {
    html: nothing,
    tag: nothing,
    url: nothing,
    del: (source) => (source.startsWith("~~") ? false : undefined),
  },
});

// A pattern is compiled when it is first used: soon, and not in the midst of the first answer.
setTimeout(() => SAMPLES.forEach((sample) => soon(() => new Lexer(defaults).lex(sample))));

/**
 * Markdown that grows. Only the unfinished end is parsed and drawn again, once per animation frame;
 * finished blocks stay in the document as they are. Much text at once is drawn step by step.
 */
export class Markdown {
  #target;
  #source = "";
  #tail = "";
  #tailNodes = [];
  #links = {};
  #step = STEP_CHARACTERS;
  #waiting = false;
  #finished = false;
  #costMs = 0;

  constructor(target) {
    this.#target = target;
  }

  /** Takes over what the server rendered: the source of unfinished text, or finished elements. */
  adopt() {
    if ("source" in this.#target.dataset) return this.replace(this.#target.textContent);
    this.#source = null;
    dress(this.#target);
  }

  /** The whole text so far; null where the server rendered it. */
  get source() {
    return this.#source;
  }

  append(text) {
    this.#source += text;
    this.#tail += text;
    if (this.#waiting) return;
    this.#waiting = true;
    const draw = () => requestAnimationFrame(() => this.#drawWaiting());
    if (this.#costMs < CHEAP_MS) draw();
    else setTimeout(draw, this.#costMs * PAUSE_PER_COST);
  }

  /** Starts again with this text, which may go on growing. */
  replace(text) {
    this.#finished = false;
    this.#restart(text, STEP_CHARACTERS);
    this.#draw();
  }

  /** The whole text is known: what waits is drawn now, much of it as soon as there is time. */
  finish(text) {
    this.#finished = true;
    if (text !== this.#source) this.#restart(text, STEP_CHARACTERS);
    this.#draw();
  }

  #restart(text, step) {
    this.#source = this.#tail = text;
    this.#step = step;
    this.#links = {};
    this.#tailNodes = [];
    this.#target.removeAttribute("data-source");
    this.#target.replaceChildren();
  }

  #drawWaiting() {
    if (this.#waiting) this.#draw();
  }

  #draw() {
    this.#waiting = false;
    const started = performance.now();
    const cut = this.#tail.endsWith("\r") ? "\r" : "";
    const text = this.#tail
      .replace(/\r$/, "")
      .replace(/\r\n?/g, "\n")
      .replaceAll("\0", "\ufffd");
    const { done, rest, unfinished } = this.#parse(text.slice(0, this.#step));
    dress(done);
    this.#tailNodes.forEach(remove);
    this.#tailNodes = [...rest.childNodes];
    this.#add(done.childNodes);
    this.#add(this.#tailNodes);
    const later = text.slice(this.#step);
    this.#tail = unfinished + later + cut;
    this.#costMs = performance.now() - started;
    if (later) {
      this.#waiting = true;
      this.#step = unfinished.length < this.#step ? STEP_CHARACTERS : this.#step * 2;
      soon(() => this.#drawWaiting());
    } else if (this.#finished) this.#settle();
  }

  /** All is drawn. A link may be defined after its use: then all is drawn again, with what is known. */
  #settle() {
    const linked = Object.keys(this.#links).length > 0;
    if (linked && this.#step !== Infinity) {
      this.#restart(this.#source, Infinity);
      return this.#draw();
    }
    this.#tailNodes.forEach(dress);
    this.#tailNodes = [];
    this.#tail = "";
  }

  /** The first blocks stand in the text itself, those after them in parts, which fill one by one. */
  #add(nodes) {
    for (const node of [...nodes]) {
      let part = this.#target;
      if (part.lastElementChild?.matches(".prose-part")) part = part.lastElementChild;
      if (node instanceof Element && part.childElementCount >= PART_BLOCKS) {
        part = document.createElement("div");
        part.className = "prose-part";
        this.#target.append(part);
      }
      part.append(node);
    }
  }

  /** The elements of finished blocks and of the rest, and the rest's text. */
  #parse(text) {
    try {
      const lexer = new Lexer(defaults);
      Object.assign(lexer.tokens.links, this.#links);
      const tokens = lexer.lex(text);
      this.#links = { ...lexer.tokens.links };
      const finished = tokens.splice(0, countFinished(tokens, text));
      const unfinished = text.slice(rawOf(finished).length);
      return { done: prose(finished), rest: prose(tokens), unfinished };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      // Nested deeper than any answer: shown as it is.
      return { done: prose([]), rest: prose([{ type: "code", text }]), unfinished: text };
    }
  }
}

/** Takes a block away, and its part where it was the only one. */
function remove(node) {
  const part = node.parentElement;
  node.remove();
  if (part.matches(".prose-part:empty")) part.remove();
}

/**
 * How many tokens no later text can change. A block is only settled by a complete line of the next one:
 * `1. a`, blank line, `2` is a list and a paragraph until `. b` makes it one list.
 */
function countFinished(tokens, text) {
  for (let last = tokens.length - 1; last > 0; last -= 1) {
    if (tokens[last].type === "space") continue;
    const before = rawOf(tokens.slice(0, last));
    if (!text.startsWith(before)) return 0;
    if (text.includes("\n", before.length)) return last;
  }
  return 0;
}

function rawOf(tokens) {
  return tokens.map((token) => token.raw).join("");
}

/** What finished blocks get on top: their language's name, colours and copy buttons. */
function dress(node) {
  if (!(node instanceof Element || node instanceof DocumentFragment)) return;
  const blocks = [...node.querySelectorAll(".code-block")];
  if (node instanceof Element && node.matches(".code-block")) blocks.push(node);
  for (const block of blocks) {
    const code = block.querySelector("code");
    addLanguage(block, code.className.replace("language-", ""));
    addCopyButton(block);
    highlight(code);
  }
}

function addLanguage(block, name) {
  if (!name) return;
  const label = document.createElement("span");
  label.className = "code-language";
  label.textContent = name;
  block.prepend(label);
}
