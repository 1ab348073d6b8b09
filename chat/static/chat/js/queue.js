import { ApiError, post } from "./api.js";
import { clone, slot } from "./slot.js";

/** The prompts that wait for their turn; each can be run now or taken out. */
export class Queue {
  #element;
  #convId;
  #onEmptied;

  /** `onEmptied()` is told when the list goes away under the person's focus. */
  constructor(element, { convId, onEmptied }) {
    this.#element = element;
    this.#convId = convId;
    this.#onEmptied = onEmptied;
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      event.preventDefault();
      this.#ask(button);
    });
  }

  show(items) {
    const { name, value } = this.#element.contains(document.activeElement)
      ? document.activeElement
      : {};
    slot(this.#element, "rows").replaceChildren(...items.map(row));
    slot(this.#element, "error").textContent = "";
    this.#element.hidden = items.length === 0;
    if (!name) return;
    const same = `[name="${name}"][value="${CSS.escape(value)}"]`;
    const next = this.#element.querySelector(same) ?? this.#element.querySelector("button");
    if (next) next.focus();
    else this.#onEmptied();
  }

  /** A button's name is the call, its value the prompt's key. */
  async #ask(button) {
    if (button.getAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true");
    try {
      const prompt = { conv_id: this.#convId, idempotency_key: button.value };
      await post(`/api/chat/queue/${button.name}`, prompt);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      button.removeAttribute("aria-disabled");
      if (error.code !== "not_queued") slot(this.#element, "error").textContent = error.message;
    }
  }
}

function row({ idempotencyKey, preview }) {
  const element = clone("queue-row");
  slot(element, "preview").textContent = preview;
  for (const [name, words] of [
    ["run", "Run now"],
    ["remove", "Remove"],
  ]) {
    const button = slot(element, name);
    button.value = idempotencyKey;
    button.setAttribute("aria-label", `${words}: ${preview}`);
  }
  return element;
}
