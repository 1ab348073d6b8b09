/** Values as people read them, in the words of chat/templatetags/cards.py. */

const SHORT_CHARACTERS = 400;
const SHORT_LINES = 8;
const LONG_CHARACTERS = 1_200;
const LONG_LINES = 16;
const LINE_CHARACTERS = 120;
const BETWEEN = /,\n */g;
const INDENT = /\n */g;

/** A value as JSON; a string as it is. */
export function readable(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** The beginning of a value as JSON on one line, a string as it is. */
export function oneLine(value) {
  const text = typeof value === "string" ? value : spaced(JSON.stringify(value, null, 1));
  const line = text.replace(/[ \t\r\n]+/g, " ").replace(/^ | $/g, "");
  const characters = [...line];
  if (characters.length <= LINE_CHARACTERS) return line;
  return `${characters.slice(0, LINE_CHARACTERS - 1).join("")}…`;
}

/** What the model read and wrote; nothing where nobody counted. */
export function tokens(usage) {
  if (!usage) return "";
  const [read, written] = [usage.inputTokens, usage.outputTokens].map((count) =>
    count.toLocaleString("en-US"),
  );
  return `${read} tokens in, ${written} out`;
}

/** `12 ms`, or `1.2 s`; nothing where nobody measured, as in a history that is told again. */
export function duration(ms) {
  if (!ms) return "";
  if (ms < 1_000) return `${ms} ms`;
  const tenths = Math.floor((ms + 50) / 100);
  return `${Math.floor(tenths / 10)}.${tenths % 10} s`;
}

/** Whether a text may stand unfolded. */
export function isShort(text) {
  return [...text].length <= SHORT_CHARACTERS && text.split("\n").length <= SHORT_LINES;
}

/** Whether what a person said is folded at first. */
export function isLong(text) {
  return [...text].length > LONG_CHARACTERS || text.split("\n").length > LONG_LINES;
}

/** JSON of one line, with a blank after each comma: no line break of JSON is inside a string. */
function spaced(json) {
  return json.replace(BETWEEN, ", ").replace(INDENT, "");
}
