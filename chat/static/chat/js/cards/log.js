import { slot } from "../slot.js";

/** A line of the log, for people. */
export class LogCard {
  static kind = "log";
  static frames = {
    log: (card, event) => card.show(event.data),
  };

  constructor(element) {
    this.element = element;
  }

  show({ level, message }) {
    this.element.dataset.level = level;
    slot(this.element, "level").textContent = level;
    slot(this.element, "message").textContent = message;
  }
}
