import { duration } from "../readable.js";
import { slot } from "../slot.js";
import { MessageCard } from "./message.js";

/** The model's reasoning, folded; how long it took, and a summary that may come late. */
export class ThinkingCard extends MessageCard {
  static kind = "thinking";
  static frames = {
    "llm.thinking.start": (card) => card.start(),
    "llm.thinking.delta": (card, event) => card.delta(event.data),
    "llm.thinking.final": (card, event) => card.final(event.data, event.metadata),
    "llm.thinking.summary": (card, event) => card.summarise(event.data.text),
  };

  show(props) {
    super.show(props);
    this.#took(props.metadata?.durationMs);
    this.summarise(props.summary ?? "");
  }

  final(data, metadata) {
    super.final(data);
    this.#took(metadata.durationMs);
  }

  summarise(text) {
    slot(this.element, "summary").textContent = text;
  }

  #took(ms) {
    slot(this.element, "duration").textContent = ms ? ` for ${duration(ms)}` : "";
  }
}
