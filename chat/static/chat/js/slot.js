/** The named place inside an element that the templates mark with data-slot. */
export function slot(element, name) {
  return element.querySelector(`[data-slot="${name}"]`);
}

/** A fresh copy of a <template>'s one element. */
export function clone(templateId) {
  return document.getElementById(templateId).content.firstElementChild.cloneNode(true);
}
