import { duration, isShort } from "../readable.js";
import { slot } from "../slot.js";

/** What a tool gave back, inside the card of its call; folded when it is long. */
export class ToolResultCard {
  static kind = "tool_result";
  static frames = {
    "tool.result": (card, event) => card.show(event.data),
  };

  /** The frame has the call's id; the entity's own is made from it. */
  static entityId = (event) => `${event.id}:result`;
  static parentId = (id) => id.replace(/:result$/, "");

  constructor(element) {
    this.element = element;
  }

  show({ result, status, durationMs }) {
    this.element.dataset.status = status;
    this.element.open = isShort(result);
    slot(this.element, "duration").textContent = duration(durationMs);
    slot(this.element, "result").textContent = result;
  }
}
