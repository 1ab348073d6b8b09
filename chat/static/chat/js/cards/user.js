import { isLong } from "../readable.js";
import { slot } from "../slot.js";

/** What the person said; the end of much is folded away until it is asked for. */
export class UserCard {
  static kind = "user";
  static frames = {
    "chat.message": (card, event) => card.show(event.data),
  };

  constructor(element) {
    this.element = element;
    element.addEventListener("click", ({ target }) => {
      if (target.dataset.slot === "more") this.#unfold(target);
    });
  }

  show({ content }) {
    slot(this.element, "text").textContent = content;
    if (!isLong(content)) slot(this.element, "more")?.remove();
  }

  #unfold(button) {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", open);
    button.textContent = open ? "Show less" : "Show all";
  }
}
