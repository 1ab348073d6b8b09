import { slot } from "../slot.js";

/** The line that says whether the page is live, with its button to pause that. */
export class Freshness {
  #element;
  #announcer;
  #state = "";

  constructor(element) {
    this.#element = element;
    // Told by the state's changes alone: a reader need not hear the time every few seconds.
    element.removeAttribute("role");
    this.#announcer = document.createElement("span");
    this.#announcer.className = "desk-unseen";
    this.#announcer.setAttribute("role", "status");
    element.append(this.#announcer);
  }

  onPause(listen) {
    const button = slot(this.#element, "pause");
    let paused = false;
    button.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      button.textContent = paused ? "Refresh again" : "Stop refreshing";
      listen(paused);
    });
  }

  say(state, words) {
    this.#element.dataset.state = state;
    slot(this.#element, "text").textContent = words;
    if (state !== this.#state && this.#state) this.#announcer.textContent = words;
    this.#state = state;
  }
}
