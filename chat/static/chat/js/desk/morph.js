/**
 * Makes `old` look like `fresh` with as few changes as it takes, so that what a person is doing there
 * (focus, selection, an open <details>, a ticked box, a half typed answer) stays as it is.
 *
 * Children are told apart by `data-key`, else by tag and place. With `keepOrder`, rows stay where they are:
 * new ones are not inserted, and those that are gone are marked.
 */
export function morph(old, fresh, { keepOrder = () => false } = {}) {
  syncAttributes(old, fresh);
  if (old.localName === "textarea") return;
  const children = [...fresh.childNodes];
  if (keepOrder(old)) return updateInPlace(old, children, { keepOrder });
  removeUnwanted(old, children);
  const keyed = byKey(old);
  let place = old.firstChild;
  for (const wanted of children) {
    const found = match(place, wanted, keyed);
    if (found && keyOf(found) !== null) place = skipTo(found, place);
    if (found) {
      if (found === place) place = place.nextSibling;
      else old.insertBefore(found, place);
      if (found.nodeType === Node.TEXT_NODE) setText(found, wanted);
      else morph(found, wanted, { keepOrder });
      delete found.dataset?.gone;
    } else {
      old.insertBefore(document.importNode(wanted, true), place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function removeUnwanted(old, children) {
  const wanted = new Set(children.map(keyOf));
  for (const child of [...old.children])
    if (keyOf(child) !== null && !wanted.has(keyOf(child))) child.remove();
}

/** Drops what lies between, so that a node which only comes nearer is not moved: that costs its focus. */
function skipTo(found, place) {
  while (place && place !== found && keyOf(place) === null) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
  return place;
}

function updateInPlace(old, children, options) {
  const wanted = new Map(children.filter((child) => keyOf(child)).map((c) => [keyOf(c), c]));
  for (const child of [...old.children]) {
    const fresh = wanted.get(keyOf(child));
    if (fresh) {
      morph(child, fresh, options);
      delete child.dataset.gone;
    } else {
      child.dataset.gone = "";
    }
  }
}

/** The node that stands for `wanted`: the one with its key, else the next one if it is alike. */
function match(place, wanted, keyed) {
  const key = keyOf(wanted);
  if (key !== null) return keyed.get(key) ?? null;
  if (!place || place.nodeType !== wanted.nodeType || keyOf(place) !== null) return null;
  if (place.nodeType === Node.TEXT_NODE) return place;
  return place.localName === wanted.localName ? place : null;
}

function byKey(parent) {
  return new Map([...parent.children].filter((c) => keyOf(c) !== null).map((c) => [keyOf(c), c]));
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? (node.dataset?.key ?? null) : null;
}

function setText(node, wanted) {
  if (node.data !== wanted.data) node.data = wanted.data;
}

/** What a person or a script of ours changed since stays: it is no attribute of the server's. */
const OURS = new Set(["open", "hidden", "data-gone"]);

function syncAttributes(old, fresh) {
  for (const { name, value } of [...fresh.attributes])
    if (!OURS.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes])
    if (!OURS.has(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
}
