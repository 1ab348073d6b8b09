import { Freshness } from "./freshness.js";
import { morph } from "./morph.js";
import { Refresher } from "./refresher.js";
import { Selection } from "./selection.js";

const form = document.getElementById("changelist-form");
const selection = new Selection(form);

const STILL_MS = 5_000;
let moved = -Infinity;
document.querySelector('[data-live="results"]').addEventListener("pointermove", () => {
  moved = performance.now();
});

/** Rows do not move below a person's moving pointer, focus or ticks. */
function keepOrder(element) {
  if (element.localName !== "tbody") return false;
  const pointing = element.matches(":hover") && performance.now() - moved < STILL_MS;
  return pointing || !selection.isEmpty || element.contains(document.activeElement);
}

function apply(fresh) {
  const table = document.querySelector('[data-live="results"]');
  const wanted = fresh.querySelector('[data-live="results"]');
  const rows = [...wanted.querySelectorAll("tbody tr")].map((row) => row.dataset.key);
  morph(table, wanted, { keepOrder });
  morph(document.querySelector('[data-live="filters"]'), fresh.querySelector('[data-live="filters"]'));
  selection.show();
  const shown = [...table.querySelectorAll("tbody tr")].map((row) => row.dataset.key);
  return rows.join() === shown.join() ? "" : "Rows keep their places while you are at them.";
}

new Refresher(new Freshness(document.querySelector("[data-freshness]")), {
  address: () => location.href,
  apply,
}).start();
