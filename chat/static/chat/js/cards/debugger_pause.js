import { ApiError, post } from "../api.js";
import { readable } from "../readable.js";
import { clone, slot } from "../slot.js";

const TICK_MS = 1_000;

/** The agent waits for a person: what it would do, the choice, and what was decided. */
export class DebuggerPauseCard {
  static kind = "debugger_pause";
  static frames = {
    "debugger.pause": (card, event) => card.show({ ...event.data, open: true }),
    "debugger.resumed": (card, event) => card.decided(event.data),
  };

  #choice;
  #timer = null;
  #deciding = false;

  constructor(element) {
    this.element = element;
    this.#choice = slot(element, "choice");
    this.#choice.addEventListener("click", ({ target }) => {
      const button = target.closest("[data-decision]");
      if (button) this.#decide(button.dataset.decision);
    });
  }

  adopt() {
    if (!this.#choice.hidden) this.#countDown();
  }

  show({ summary, deadlineMs, onTimeout, extra, open, decision, by }) {
    this.element.dataset.deadlineMs = deadlineMs;
    this.element.dataset.onTimeout = onTimeout;
    slot(this.element, "summary").textContent = summary;
    const calls = (extra.toolCalls ?? []).map(({ name, input }) => step(name, readable(input)));
    const results = (extra.results ?? []).map(({ status, result }) => step(status, result));
    slot(this.element, "steps").replaceChildren(...calls, ...results);
    this.#choice.hidden = !open;
    if (open) this.#countDown();
    else if (decision) this.decided({ decision, by });
  }

  decided({ decision, by }) {
    clearInterval(this.#timer);
    const outcome = slot(this.element, "outcome");
    for (const words of outcome.querySelectorAll("[data-when]")) {
      words.hidden = words.dataset.when !== decision;
    }
    slot(outcome, "by").textContent = by;
    outcome.hidden = false;
    if (this.#choice.contains(document.activeElement)) outcome.focus();
    this.#choice.hidden = true;
    this.#enable(true);
    slot(this.element, "countdown").textContent = "";
    slot(this.element, "error").textContent = "";
  }

  async #decide(decision) {
    if (this.#deciding) return;
    this.#enable(false);
    try {
      const { pause } = await post("/api/debug/continue", {
        conv_id: this.element.closest("[data-conversation]").dataset.convId,
        pause_id: this.element.dataset.entityId,
        decision,
      });
      this.decided(pause);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.answer.pause) return this.decided(error.answer.pause);
      slot(this.element, "error").textContent = error.message;
      this.#enable(true);
    }
  }

  /** Not `disabled`: that would take the focus away from somebody who works by keyboard. */
  #enable(enabled) {
    this.#deciding = !enabled;
    for (const button of this.#choice.querySelectorAll("button")) {
      if (enabled) button.removeAttribute("aria-disabled");
      else button.setAttribute("aria-disabled", "true");
    }
  }

  #countDown() {
    clearInterval(this.#timer);
    this.#tick();
    // A snapshot may have replaced this card since.
    this.#timer = setInterval(() => {
      if (this.element.isConnected) this.#tick();
      else clearInterval(this.#timer);
    }, TICK_MS);
  }

  #tick() {
    const left = Math.max(0, Math.ceil((this.element.dataset.deadlineMs - Date.now()) / 1_000));
    const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    const what = this.element.dataset.onTimeout === "deny" ? "Refused" : "Continues";
    slot(this.element, "countdown").textContent = `${what} by itself in ${clock}`;
  }
}

function step(name, text) {
  const element = clone("pause-step");
  slot(element, "name").textContent = name;
  slot(element, "text").textContent = text;
  return element;
}
