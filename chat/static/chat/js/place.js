/**
 * A reload, or going back, shows a conversation where the person had left it. Loaded before the first
 * paint, so it needs nothing else. A page that was left at its end starts there, as all others do.
 */
const KEY = `place:${location.pathname}`;

/** What the browser may leave out while nobody looks at it: its height is a guess until then. */
const PARTS = ".timeline-part, .prose-part";
/** So many windows from the place on nothing is left out of the first paint. */
const WINDOWS = 3;

function leave() {
  const top = document.querySelector(".masthead").getBoundingClientRect().bottom;
  const isAbove = (element) => element.getBoundingClientRect().top <= top;
  const parts = [...document.querySelectorAll("[data-timeline] > .timeline-part")];
  const part = parts.findLast(isAbove) ?? parts[0];
  const places = [...(part?.querySelectorAll("[data-entity-id], .prose-part") ?? [])];
  const place = places.findLast(isAbove) ?? places[0];
  if (!place || document.body.scrollTop >= 0) return sessionStorage.removeItem(KEY);
  const id = place.closest("[data-entity-id]").dataset.entityId;
  const offset = place.getBoundingClientRect().top;
  sessionStorage.setItem(KEY, JSON.stringify({ id, part: partsOf(place).indexOf(place), offset }));
}

function comeBack() {
  const kept = sessionStorage.getItem(KEY);
  const [navigation] = performance.getEntriesByType("navigation");
  if (!kept || navigation?.type === "navigate") return;
  const { id, part, offset } = JSON.parse(kept);
  const card = document.querySelector(`[data-timeline] [data-entity-id="${CSS.escape(id)}"]`);
  if (!card) return;
  const place = partsOf(card)[part] ?? card;
  showFrom(place);
  document.body.scrollTop += place.getBoundingClientRect().top - offset;
}

/** The parts of the text of a card, which may be given by one of them. */
function partsOf(place) {
  return [...place.closest("[data-entity-id]").querySelectorAll(".prose-part")];
}

/** Has what stands there, and what follows, in the first paint, so that its real height counts. */
function showFrom(place) {
  const shown = [];
  const distance = (part) => part.getBoundingClientRect().top - place.getBoundingClientRect().top;
  for (const part of document.querySelectorAll(PARTS)) {
    const isBefore = place.compareDocumentPosition(part) & Node.DOCUMENT_POSITION_PRECEDING;
    if (isBefore && !part.contains(place)) continue;
    if (distance(part) > WINDOWS * innerHeight) break;
    part.style.contentVisibility = "visible";
    shown.push(part);
  }
  const release = () => shown.forEach((part) => part.removeAttribute("style"));
  requestAnimationFrame(() => requestAnimationFrame(release));
}

comeBack();
addEventListener("pagehide", leave);
