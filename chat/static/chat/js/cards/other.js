import { changed } from "../props.js";
import { slot } from "../slot.js";

/** An entity of a kind without a card of its own: its properties as readable JSON. */
export class OtherCard {
  static kind = "other";
  static frames = {};

  #props = {};

  constructor(element) {
    this.element = element;
  }

  /** Numbers are written by the script, too, so that a card looks the same however it came. */
  adopt() {
    this.show(JSON.parse(slot(this.element, "json").textContent));
  }

  show(props, kind = slot(this.element, "kind").textContent) {
    this.#props = props;
    slot(this.element, "kind").textContent = kind;
    slot(this.element, "json").textContent = JSON.stringify(props, null, 2);
  }

  take(data, kind) {
    this.show(changed(this.#props, data), kind);
  }
}
