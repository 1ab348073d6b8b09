import { slot } from "../slot.js";

/** One prompt run to its end: it holds the cards that appear meanwhile and says how it ended. */
export class InferenceCard {
  static kind = "inference";
  static frames = {
    "inference.started": (card) => card.show({ status: "running" }),
    "inference.finished": (card, event) => card.show(event.data),
  };

  constructor(element) {
    this.element = element;
    this.cards = slot(element, "cards");
  }

  get running() {
    return this.element.dataset.status === "running";
  }

  show({ status, error }) {
    this.element.dataset.status = status;
    const end = this.element.querySelector(':scope > [data-slot="end"]');
    for (const sentence of end.querySelectorAll("[data-when]")) {
      sentence.hidden = sentence.dataset.when !== status;
    }
    const reason = slot(end, "error");
    reason.textContent = error ?? "";
    reason.hidden = !error;
  }
}
