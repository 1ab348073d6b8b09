import { slot } from "../slot.js";
import { MessageCard } from "./message.js";

/** The model's reasoning, folded; a summary may come late. */
export class ThinkingCard extends MessageCard {
  static kind = "thinking";
  static frames = {
    "llm.thinking.start": (card) => card.start(),
    "llm.thinking.delta": (card, event) => card.delta(event.data),
    "llm.thinking.final": (card, event) => card.final(event.data),
    "llm.thinking.summary": (card, event) => card.summarise(event.data.text),
  };

  show(props) {
    super.show(props);
    this.summarise(props.summary ?? "");
  }

  summarise(text) {
    slot(this.element, "summary").textContent = text;
  }
}
