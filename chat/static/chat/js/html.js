/**
 * The one place where HTML text becomes elements. What comes out is a DocumentFragment of the tags and
 * attributes listed here and nothing else; chat/markdown.py keeps the same list on the server.
 */
import DOMPurify from "../vendor/dompurify-3.4.18/purify.es.mjs";

const TAGS =
  "a blockquote br code del div em h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul";
const LINK_REL = "noopener noreferrer nofollow ugc";
export const SAFE_LINK = /^(?:https?|mailto):/i;

const PROSE = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: ["align", "href", "start"],
  ALLOWED_URI_REGEXP: SAFE_LINK,
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

const HIGHLIGHTED = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: ["span"],
  ALLOWED_ATTR: ["class"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.localName !== "a") return;
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", LINK_REL);
});

/** An answer's HTML as elements that can do no harm. */
export function prose(html) {
  return DOMPurify.sanitize(html, PROSE);
}

/** Highlighted code: text in coloured spans. */
export function highlighted(html) {
  return DOMPurify.sanitize(html, HIGHLIGHTED);
}
