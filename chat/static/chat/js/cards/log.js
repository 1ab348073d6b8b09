import { readable } from "../readable.js";
import { slot } from "../slot.js";

/** A line of the log, for people; its fields are folded. */
export class LogCard {
  static kind = "log";
  static frames = {
    log: (card, event) => card.show(event.data),
  };

  constructor(element) {
    this.element = element;
  }

  show({ level, message, fields }) {
    this.element.dataset.level = level;
    slot(this.element, "level").textContent = level;
    slot(this.element, "message").textContent = message;
    slot(this.element, "fields").textContent = readable(fields);
    slot(this.element, "details").hidden = Object.keys(fields).length === 0;
  }
}
