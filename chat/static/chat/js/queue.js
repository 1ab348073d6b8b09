import { ApiError, post } from "./api.js";
import { clone, slot } from "./slot.js";

/** The prompts that wait for their turn; each can be taken out again. */
export class Queue {
  #element;
  #convId;
  #onEmptied;

  /** `onEmptied()` is told when the list goes away under the person's focus. */
  constructor(element, { convId, onEmptied }) {
    this.#element = element;
    this.#convId = convId;
    this.#onEmptied = onEmptied;
    element.addEventListener("click", ({ target }) => {
      const button = target.closest("[data-remove]");
      if (button) this.#remove(button);
    });
  }

  show(items) {
    const focused = this.#element.contains(document.activeElement);
    slot(this.#element, "rows").replaceChildren(...items.map(row));
    slot(this.#element, "error").textContent = "";
    this.#element.hidden = items.length === 0;
    if (!focused) return;
    const next = this.#element.querySelector("[data-remove]");
    if (next) next.focus();
    else this.#onEmptied();
  }

  async #remove(button) {
    if (button.getAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true");
    try {
      const key = button.dataset.remove;
      await post("/api/chat/queue/remove", { conv_id: this.#convId, idempotency_key: key });
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
  const button = element.querySelector("[data-remove]");
  button.dataset.remove = idempotencyKey;
  button.setAttribute("aria-label", `Remove: ${preview}`);
  return element;
}
