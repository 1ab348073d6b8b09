/**
 * Markdown's tokens → elements. No HTML text is on the way, so whatever an answer says is text in the
 * elements made here. chat/markdown.py makes the same ones on the server.
 */
import { decoded } from "./entities.js";

/** The page's title is h1 and a message is h2, so an answer's first level is h3. */
const HEADING_SHIFT = 2;
const SAFE_LINK = /^(?:https?|mailto):/i;
const LINK_REL = "noopener noreferrer nofollow ugc";
const HOST = /^https?:\/\/(?:[^/?#@]*@)?([^/?#@:]+)/i;
const LANGUAGE = /^[\w+#.-]{1,40}/;
/** What stands in lines of its own: whoever takes the text alone finds its words apart. */
const BLOCKS = new Set(["heading", "paragraph", "blockquote", "hr", "code", "list", "table"]);
/** Deeper is no answer but an attack on the browser's own stack. */
const DEEPEST = 100;

/** The elements of these tokens. Throws RangeError where they are nested too deep. */
export function prose(tokens, depth = 0) {
  if (depth > DEEPEST) throw new RangeError(`nested deeper than ${DEEPEST}`);
  const fragment = new DocumentFragment();
  for (const token of tokens) {
    const made = MAKERS[token.type]?.(token, (inner) => prose(inner, depth + 1));
    if (made !== undefined) fragment.append(made);
    if (BLOCKS.has(token.type)) fragment.append("\n");
  }
  return fragment;
}

/** For each type of token what it becomes: nothing, a text, an element, several. */
const MAKERS = {
  heading: ({ tokens, depth }, inside) =>
    make(`h${Math.min(6, depth + HEADING_SHIFT)}`, inside(tokens)),
  paragraph: ({ tokens }, inside) => make("p", inside(tokens)),
  blockquote: ({ tokens }, inside) => make("blockquote", inside(tokens)),
  hr: () => make("hr"),
  code: ({ text, lang, codeBlockStyle }) =>
    codeBlock(codeBlockStyle === "indented" ? text.replace(/\n+$/, "") : text, lang),
  list,
  table,
  text: ({ text, tokens }, inside) => (tokens ? inside(tokens) : decoded(text)),
  escape: ({ text }) => text,
  strong: ({ tokens }, inside) => make("strong", inside(tokens)),
  em: ({ tokens }, inside) => make("em", inside(tokens)),
  del: ({ tokens }, inside) => make("del", inside(tokens)),
  codespan: ({ text }) => make("code", text),
  br: () => make("br"),
  checkbox: ({ checked }) => (checked ? "[x] " : "[ ] "),
  link,
  image: ({ href, tokens, text }) => pictureWords(tokens ? words(tokens) : text, href),
};

function make(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}

function codeBlock(text, lang) {
  const code = make("code", text && `${text}\n`);
  const language = lang?.match(LANGUAGE)?.[0];
  if (language) code.className = `language-${language}`;
  const block = make("div", make("pre", code));
  block.className = "code-block";
  return block;
}

function list({ ordered, start, items }, inside) {
  const element = make(ordered ? "ol" : "ul", ...items.map(({ tokens }) => make("li", inside(tokens))));
  if (ordered && start !== 1) element.setAttribute("start", start);
  return element;
}

function table({ header, rows }, inside) {
  const cell = (name, { tokens, align }) => {
    const element = make(name, inside(tokens));
    if (align) element.setAttribute("align", align);
    return element;
  };
  const row = (name, cells) => make("tr", ...cells.map((each) => cell(name, each)));
  const element = make("table", make("thead", row("th", header)));
  if (rows.length > 0) element.append(make("tbody", ...rows.map((cells) => row("td", cells))));
  const block = make("div", element);
  block.className = "table-block";
  return block;
}

/** Links lead to the web or to mail; of others the words are left. */
function link({ href, text, tokens, autolink }, inside) {
  const shown = autolink ? text : inside(tokens);
  const destination = autolink ? href : decoded(href);
  if (!SAFE_LINK.test(destination)) return shown;
  const element = make("a", shown);
  element.setAttribute("href", encoded(destination));
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", LINK_REL);
  return element;
}

/** What stands in a picture's place: what it shows and where it would have come from. */
function pictureWords(alt, href) {
  const host = href.match(HOST)?.[1].toLowerCase();
  return `Image${alt && `: ${alt}`}${host ? ` (${host})` : ""}`;
}

/** The tokens' text alone. */
function words(tokens) {
  return tokens
    .map(({ type, text = "", tokens: inner }) => {
      if (inner) return words(inner);
      if (type === "br") return "\n";
      return type === "text" ? decoded(text) : text;
    })
    .join("");
}

/** The address with what needs it percent-encoded, and nothing encoded twice. */
function encoded(href) {
  try {
    return encodeURI(href).replaceAll("%25", "%");
  } catch {
    return href;
  }
}
