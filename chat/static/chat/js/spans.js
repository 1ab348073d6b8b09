/** What the highlighter writes → elements. */

/** All that it writes: spans of its classes, their ends, and five characters. */
const SPAN = /<span class="((?:hljs|language)-[\w -]+)">|<\/span>/g;
const CHARACTER = /&(?:amp|lt|gt|quot|#x27);/g;
const CHARACTERS = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/** Text in coloured spans. What the highlighter does not write is text, too. */
export function spans(html) {
  const fragment = new DocumentFragment();
  let place = fragment;
  let end = 0;
  const add = (text) => place.append(text.replace(CHARACTER, (name) => CHARACTERS[name]));
  for (const { 0: tag, 1: classes, index } of html.matchAll(SPAN)) {
    if (index > end) add(html.slice(end, index));
    end = index + tag.length;
    if (!classes) {
      place = place.parentNode ?? fragment;
      continue;
    }
    const span = document.createElement("span");
    span.className = classes;
    place.append(span);
    place = span;
  }
  add(html.slice(end));
  return fragment;
}
