/** HTML's names for characters, such as &amp; and &#233;, which Markdown has too. */
const REFERENCE = /&(?:#(\d{1,7})|#x([\da-f]{1,6})|\w+);/gi;
const LAST_CODE_POINT = 0x10ffff;
const UNKNOWN = "\ufffd";

/** The browser knows the names. It is asked for nothing but a name. */
const html = { createHTML: (name) => `<p>${name.match(/^&\w+;$/)?.[0] ?? ""}` };
const policy = globalThis.trustedTypes?.createPolicy("webchat-entities", html) ?? html;
const known = new Map();

/** The text with characters in the place of their names; what is no such name stays as it is. */
export function decoded(text) {
  if (!text.includes("&")) return text;
  return text.replace(REFERENCE, (name, decimal, hexadecimal) => {
    if (decimal) return character(parseInt(decimal, 10));
    return hexadecimal ? character(parseInt(hexadecimal, 16)) : named(name);
  });
}

function character(code) {
  const surrogate = code >= 0xd800 && code <= 0xdfff;
  const valid = code > 0 && code <= LAST_CODE_POINT && !surrogate;
  return valid ? String.fromCodePoint(code) : UNKNOWN;
}

function named(name) {
  if (!known.has(name)) known.set(name, asked(name));
  return known.get(name);
}

function asked(name) {
  const { body } = new DOMParser().parseFromString(policy.createHTML(name), "text/html");
  // No name stands for more than two units. Where only its beginning is one, the rest is left.
  return body.textContent.length <= 2 ? body.textContent : name;
}
