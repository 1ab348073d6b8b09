import { oneLine, readable } from "../readable.js";
import { slot } from "../slot.js";

/** A tool that the model asked for, and how that goes. It holds the card of its result. */
export class ToolCallCard {
  static kind = "tool_call";
  static frames = {
    "tool.start": (card, event) => card.show({ ...event.data, status: "requested" }),
    "tool.delta": (card, { data: { patch } }) =>
      card.show({ ...patch, ...(patch.exec && { status: "running" }) }),
    "tool.done": (card, event) => card.show({ status: event.data.status, done: true }),
  };

  constructor(element) {
    this.element = element;
  }

  /** Changes what is given and leaves the rest. */
  show({ name, input, status, progress, note, done }) {
    if (name !== undefined) slot(this.element, "name").textContent = name;
    if (input !== undefined) {
      slot(this.element, "preview").textContent = oneLine(input);
      slot(this.element, "input").textContent = readable(input);
    }
    if (status !== undefined) {
      this.element.dataset.status = status;
      slot(this.element, "status").textContent = status;
    }
    if (note !== undefined) {
      slot(this.element, "note").textContent = note;
      slot(this.element, "note").hidden = !note;
    }
    const bar = slot(this.element, "progress");
    if (progress !== undefined) {
      bar.value = progress;
      bar.hidden = false;
    }
    if (done) {
      bar.removeAttribute("value");
      bar.hidden = true;
    }
  }
}
