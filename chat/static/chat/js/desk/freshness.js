import { slot } from "../slot.js";

/** The line that says whether the page is live, with its button to pause that. */
export class Freshness {
  #element;
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

  #announcer;

  onPause(listen) {
    const button = slot(this.#element, "pause");
    button.hidden = false;
    button.addEventListener("click", () => {
      const paused = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(paused));
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
