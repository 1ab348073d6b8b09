import { slot } from "../chat/js/slot.js";

/** How hard the agent thinks, and how much it did, in the words of the template. */
export default class ThinkingModeCard {
  constructor(element) {
    this.level = slot(element, "level");
    this.thought = slot(element, "thought");
  }

  show({ level = "", words = 0, calls = 0 }) {
    this.level.textContent = level;
    this.thought.textContent = calls
      ? `${counted(words, "word")} in ${counted(calls, "model call")}`
      : "";
  }
}

function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
