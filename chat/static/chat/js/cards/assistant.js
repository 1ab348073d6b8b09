import { MessageCard } from "./message.js";

/** A piece of the answer. */
export class AssistantCard extends MessageCard {
  static kind = "assistant";
  static frames = {
    "llm.start": (card) => card.start(),
    "llm.delta": (card, event) => card.delta(event.data),
    "llm.final": (card, event) => card.final(event.data),
  };
}
