// What tests ask of a page. `probe(page, "<function>", argument)` calls one of these inside it.

/** The page's own copy of a module: a second one would want a second Trusted Types policy. */
function moduleNamed(name) {
  const pattern = new RegExp(`/js/${name}(\\.[0-9a-f]+)?\\.js$`);
  const entries = performance.getEntriesByType("resource");
  return import(entries.find((entry) => pattern.test(entry.name)).name);
}

/** Elements, attributes and text, one to a line, without what scripts put on top of the server's. */
function normalised(selector) {
  return normalisedElement(document.querySelector(selector));
}

function normalisedElement(element) {
  const copy = element.cloneNode(true);
  for (const extra of copy.querySelectorAll(".code-copy, .code-language")) extra.remove();
  for (const code of copy.querySelectorAll("pre > code")) code.textContent = code.textContent;
  copy.normalize();
  return show(copy);
}

function show(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.parentElement.closest("pre, .message-bubble")) return JSON.stringify(node.data);
    const text = node.data.replace(/\s+/g, " ").trim();
    return text && JSON.stringify(text);
  }
  if (node.nodeType !== Node.ELEMENT_NODE) return "";
  const attributes = [...node.attributes].map(({ name, value }) => ` ${name}=${value}`).sort();
  const inner = [...node.childNodes].map(show).filter(Boolean).join("\n");
  return `<${node.localName}${attributes.join("")}>\n${inner}\n</${node.localName}>`;
}

/** The Markdown as the page draws it: at once, or drawn anew for every single character. */
async function drawn({ source, characters }) {
  const { Markdown } = await moduleNamed("markdown");
  const { requestAnimationFrame, setTimeout } = window;
  window.requestAnimationFrame = window.setTimeout = (draw) => draw();
  const target = document.createElement("div");
  const markdown = new Markdown(target);
  if (characters) for (const character of source) markdown.append(character);
  markdown.finish(source);
  Object.assign(window, { requestAnimationFrame, setTimeout });
  return normalisedElement(target);
}

/** How many nodes a piece moves in or out of a text that has this before it. */
async function touched({ before, piece }) {
  const { Markdown } = await moduleNamed("markdown");
  const target = document.createElement("div");
  const markdown = new Markdown(target);
  const drawn = async (text) => {
    const last = text.slice(text.lastIndexOf("\n") + 1);
    while (!target.textContent.trimEnd().endsWith(last)) await new Promise(requestAnimationFrame);
  };
  markdown.replace(before);
  await drawn(before);
  let moved = 0;
  const count = ({ addedNodes, removedNodes }) => (moved += addedNodes.length + removedNodes.length);
  const observer = new MutationObserver((records) => records.forEach(count));
  observer.observe(target, { childList: true, subtree: true });
  markdown.append(`\n\n${piece}`);
  await drawn(piece);
  return moved;
}

const TAGS = new Set(
  (
    "A BLOCKQUOTE BR BUTTON CODE DEL DIV EM H3 H4 H5 H6 HR LI OL P PRE SPAN STRONG " +
    "TABLE TBODY TD TH THEAD TR UL"
  ).split(" "),
);
const ATTRIBUTES = new Set(["align", "class", "data-copy", "href", "rel", "start", "target", "type"]);
const CLASSES =
  /^(button button-quiet code-copy|code-block|code-language|table-block|language-[\w+#.-]+|hljs-[\w -]+)$/;

/** Draws every prefix and lists what should not be there. */
async function strangers(source) {
  const { Markdown } = await moduleNamed("markdown");
  const target = document.createElement("div");
  document.body.append(target);
  const markdown = new Markdown(target);
  const found = new Set();
  const characters = [...source];
  for (let end = 1; end <= characters.length; end += 1) {
    const prefix = characters.slice(0, end).join("");
    markdown.replace(prefix);
    if (end === characters.length) markdown.finish(prefix);
    for (const stranger of strangersIn(target)) found.add(`${stranger} in ${prefix}`);
  }
  target.remove();
  return [...found];
}

/** Takes raw HTML for what the highlighter wrote, shows it, and lists what should not be there. */
async function strangersAmongSpans(html) {
  const { spans } = await moduleNamed("spans");
  const target = document.createElement("div");
  document.body.append(target);
  target.append(spans(html));
  const found = strangersIn(target);
  target.remove();
  return found;
}

function strangersIn(target) {
  return [...target.querySelectorAll("*")].flatMap((element) => [
    ...(TAGS.has(element.tagName) ? [] : [`<${element.tagName}>`]),
    ...[...element.attributes]
      .filter(({ name, value }) => !fine(name, value))
      .map(({ name, value }) => `${name}=${value}`),
  ]);
}

function fine(name, value) {
  if (name === "href") return /^(https?|mailto):/.test(value);
  if (name === "class") return CLASSES.test(value);
  return ATTRIBUTES.has(name);
}

/** Shows the conversation as its snapshot has it, instead of what the frames have made. */
async function showSnapshot(url) {
  const { Timeline } = await moduleNamed("timeline");
  const snapshot = await (await fetch(url)).json();
  const root = document.createElement("div");
  showAll(new Timeline(root, { epoch: "0", seq: 0 }), snapshot);
  document.querySelector("[data-timeline]").replaceChildren(...root.children);
}

/** Takes the conversation's snapshot over the cards that are there. */
async function takeSnapshot(url) {
  const { Timeline } = await moduleNamed("timeline");
  const snapshot = await (await fetch(url)).json();
  const cursor = { epoch: snapshot.epoch, seq: snapshot.version };
  showAll(new Timeline(document.querySelector("[data-timeline]"), cursor), snapshot);
}

function showAll(timeline, snapshot) {
  timeline.replace(snapshot);
  for (const { id } of snapshot.entities) timeline.card(id);
}
