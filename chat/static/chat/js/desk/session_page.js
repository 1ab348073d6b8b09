import { countDown } from "./countdown.js";
import { Freshness } from "./freshness.js";
import { morph } from "./morph.js";
import { Refresher } from "./refresher.js";
import { Tail } from "./tail.js";

/** Turns are long: they are sent again only when there are more of them than here. */
function address() {
  const url = new URL(location.href);
  url.searchParams.set("turns", document.querySelector("[data-turns]").dataset.turns);
  return url;
}

function apply(fresh) {
  for (const wanted of fresh.querySelectorAll("[data-live]"))
    morph(document.querySelector(`[data-live="${wanted.dataset.live}"]`), wanted);
}

new Refresher(new Freshness(document.querySelector("[data-freshness]")), { address, apply }).start();
countDown();
const frames = document.querySelector("[data-frames]");
if (frames) new Tail(frames);
