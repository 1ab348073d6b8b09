/** Values as people read them, in the words of chat/templatetags/cards.py. */

const SHORT_CHARACTERS = 400;
const SHORT_LINES = 8;

/** A value as JSON; a string as it is. */
export function readable(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** `12 ms`, or `1.2 s`. */
export function duration(ms) {
  if (ms < 1_000) return `${ms} ms`;
  const tenths = Math.floor((ms + 50) / 100);
  return `${Math.floor(tenths / 10)}.${tenths % 10} s`;
}

/** Whether a text may stand unfolded. */
export function isShort(text) {
  return [...text].length <= SHORT_CHARACTERS && text.split("\n").length <= SHORT_LINES;
}
