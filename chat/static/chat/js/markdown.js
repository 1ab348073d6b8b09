import { Lexer, Marked } from "../vendor/marked-18.2.1/marked.esm.js";
import { addCopyButton } from "./copy.js";
import { highlight } from "./highlight.js";
import { SAFE_LINK, prose } from "./html.js";

/** The page's title is h1 and a message is h2, so an answer's first level is h3. */
const HEADING_SHIFT = 2;
const HOST = /^https?:\/\/(?:[^/?#@]*@)?([^/?#@:]+)/i;
const LANGUAGE = /^[\w+#.-]{1,40}/;
/** A block so long that drawing it takes more than this is drawn less often than each frame. */
const CHEAP_MS = 8;
const PAUSE_PER_COST = 4;
/** So many blocks of an answer make a part of it, as on the server (chat/markdown.py). */
const PART_BLOCKS = 32;
const nothing = () => undefined;

/** Raw HTML and bare addresses are text; the server's parser is set up alike (chat/markdown.py). */
const marked = new Marked({
  tokenizer: {
    html: nothing,
    tag: nothing,
    url: nothing,
    del: (source) => (source.startsWith("~~") ? false : undefined),
  },
  renderer: {
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + HEADING_SHIFT);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
    code({ text, codeBlockStyle }) {
      const code = codeBlockStyle === "indented" ? text.replace(/\n+$/, "") : text;
      return `<div><pre><code>${escape(code && `${code}\n`)}</code></pre></div>\n`;
    },
    link({ href, tokens }) {
      const words = this.parser.parseInline(tokens);
      return SAFE_LINK.test(href) ? `<a href="${escape(encoded(href))}">${words}</a>` : words;
    },
    image({ href, text, tokens }) {
      const alt = tokens ? this.parser.parseInline(tokens, this.parser.textRenderer) : text;
      const host = href.match(HOST)?.[1].toLowerCase();
      return escape(`Image${alt && `: ${alt}`}${host ? ` (${host})` : ""}`);
    },
    checkbox({ checked }) {
      return checked ? "[x] " : "[ ] ";
    },
  },
});

/**
 * Markdown that grows. Only the unfinished end is parsed and drawn again, once per animation frame;
 * finished blocks stay in the document as they are.
 */
export class Markdown {
  #target;
  #source = "";
  #tail = "";
  #tailNodes = [];
  #links = {};
  #waiting = false;
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
    const draw = () => requestAnimationFrame(() => this.#waiting && this.#draw());
    if (this.#costMs < CHEAP_MS) draw();
    else setTimeout(draw, this.#costMs * PAUSE_PER_COST);
  }

  /** Starts again with this text, which may go on growing. */
  replace(text) {
    this.#source = this.#tail = text;
    this.#links = {};
    this.#tailNodes = [];
    this.#target.removeAttribute("data-source");
    this.#target.replaceChildren();
    this.#draw();
  }

  /** The whole text is known: what waits is drawn now. */
  finish(text) {
    const linksDefinedLate = Object.keys(this.#links).length > 0;
    if (text !== this.#source || linksDefinedLate) this.replace(text);
    else this.#draw();
    this.#tailNodes.forEach(dress);
    this.#tailNodes = [];
    this.#tail = "";
  }

  #draw() {
    this.#waiting = false;
    const started = performance.now();
    const cut = this.#tail.endsWith("\r") ? "\r" : "";
    const text = this.#tail
      .replace(/\r$/, "")
      .replace(/\r\n?/g, "\n")
      .replaceAll("\0", "\ufffd");
    const { done, rest, unfinished } = this.#parse(text);
    dress(done);
    this.#tailNodes.forEach(remove);
    this.#tailNodes = [...rest.childNodes];
    this.#add(done.childNodes);
    this.#add(this.#tailNodes);
    this.#tail = unfinished + cut;
    this.#costMs = performance.now() - started;
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
      const lexer = new Lexer(marked.defaults);
      Object.assign(lexer.tokens.links, this.#links);
      const tokens = lexer.lex(text);
      this.#links = { ...lexer.tokens.links };
      const finished = tokens.splice(0, countFinished(tokens, text));
      const unfinished = text.slice(rawOf(finished).length);
      return { done: render(finished), rest: render(tokens), unfinished };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      // Nested deeper than the parser's stack: shown as it is.
      const plain = [{ type: "code", raw: text, text }];
      return { done: new DocumentFragment(), rest: render(plain), unfinished: text };
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

function render(tokens) {
  if (!tokens.length) return new DocumentFragment();
  const fragment = prose(marked.parser(tokens));
  const languages = [];
  marked.walkTokens(tokens, (token) => {
    if (token.type === "code") languages.push(token.lang?.match(LANGUAGE)?.[0]);
  });
  fragment.querySelectorAll("pre > code").forEach((code, index) => {
    code.closest("div").className = "code-block";
    if (languages[index]) code.className = `language-${languages[index]}`;
  });
  for (const table of fragment.querySelectorAll("table")) {
    const block = document.createElement("div");
    block.className = "table-block";
    table.replaceWith(block);
    block.append(table);
  }
  return fragment;
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

/** The address with what needs it percent-encoded, and nothing encoded twice. */
function encoded(href) {
  try {
    return encodeURI(href).replaceAll("%25", "%");
  } catch {
    return href;
  }
}

function escape(text) {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
