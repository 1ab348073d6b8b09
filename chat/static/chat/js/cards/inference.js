import { duration, tokens } from "../readable.js";
import { slot } from "../slot.js";

/**
 * One prompt run to its end: it holds the cards that appear meanwhile, says how it ended and what it
 * took.
 */
export class InferenceCard {
  static kind = "inference";
  static frames = {
    "inference.started": (card, event) => card.show({ ...event.data, status: "running" }),
    "inference.finished": (card, event) => card.show(event.data),
  };

  #end;

  constructor(element) {
    this.element = element;
    this.#end = element.querySelector(':scope > [data-slot="end"]');
  }

  get running() {
    return this.element.dataset.status === "running";
  }

  show({ status, model, error, usage, durationMs }) {
    this.element.dataset.status = status;
    for (const sentence of this.#end.querySelectorAll("[data-when]")) {
      sentence.hidden = sentence.dataset.when !== status;
    }
    const reason = slot(this.#end, "error");
    reason.textContent = error ?? "";
    reason.hidden = !error;
    const again = slot(this.#end, "again");
    again.value = this.element.dataset.entityId;
    if (status === "completed") again.removeAttribute("form");
    if (model !== undefined) slot(this.#end, "model").textContent = model;
    slot(this.#end, "tokens").textContent = tokens(usage);
    slot(this.#end, "duration").textContent = duration(durationMs);
  }
}
