import { slot } from "../slot.js";

/** An entity of a kind without a card of its own: its properties as readable JSON. */
export class OtherCard {
  static kind = "other";
  static frames = {};

  constructor(element) {
    this.element = element;
  }

  show(props, kind) {
    slot(this.element, "kind").textContent = kind;
    slot(this.element, "json").textContent = JSON.stringify(props, null, 2);
  }
}
