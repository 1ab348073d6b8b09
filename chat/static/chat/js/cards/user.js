import { slot } from "../slot.js";

/** What the person said. */
export class UserCard {
  static kind = "user";
  static frames = {
    "chat.message": (card, event) => card.show(event.data),
  };

  constructor(element) {
    this.element = element;
  }

  show({ content }) {
    slot(this.element, "text").textContent = content;
  }
}
