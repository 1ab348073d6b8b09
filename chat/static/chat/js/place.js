/**
 * A reload, or going back, shows a conversation where the person had left it. Loaded before the first
 * paint, so it needs nothing else. A page that was left at its end starts there, as all others do.
 */
const KEY = `place:${location.pathname}`;

function leave() {
  const top = document.querySelector(".masthead").getBoundingClientRect().bottom;
  const cards = [...document.querySelectorAll("[data-timeline] [data-entity-id]")];
  const card = cards.findLast((card) => card.getBoundingClientRect().top <= top) ?? cards[0];
  if (!card || document.body.scrollTop >= 0) return sessionStorage.removeItem(KEY);
  const offset = card.getBoundingClientRect().top;
  sessionStorage.setItem(KEY, JSON.stringify({ id: card.dataset.entityId, offset }));
}

function comeBack() {
  const kept = sessionStorage.getItem(KEY);
  const [navigation] = performance.getEntriesByType("navigation");
  if (!kept || navigation?.type === "navigate") return;
  const { id, offset } = JSON.parse(kept);
  const card = document.querySelector(`[data-timeline] [data-entity-id="${CSS.escape(id)}"]`);
  if (card) document.body.scrollTop += card.getBoundingClientRect().top - offset;
}

comeBack();
addEventListener("pagehide", leave);
