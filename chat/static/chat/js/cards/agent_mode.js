import { slot } from "../slot.js";

/** The agent went from one mode to another, and why. */
export class AgentModeCard {
  static kind = "agent_mode";
  static frames = {
    "agent.mode": (card, event) => card.show(event.data),
  };

  constructor(element) {
    this.element = element;
  }

  show({ title, data }) {
    slot(this.element, "title").textContent = title;
    slot(this.element, "from").textContent = data.from;
    slot(this.element, "to").textContent = data.to;
    const analysis = slot(this.element, "analysis");
    analysis.textContent = data.analysis;
    analysis.hidden = !data.analysis;
  }
}
