import { get } from "./api.js";
import { slot } from "./slot.js";

/** What can be done with an answer that has ended: copy its Markdown, send its prompt again. */
export class Answers {
  #root;
  #convId;
  #timeline;

  /** `again(prompt, inferenceId)` is told what to send. */
  constructor(root, { convId, timeline, again }) {
    this.#root = root;
    this.#convId = convId;
    this.#timeline = timeline;
    root.addEventListener("click", (event) => {
      const button = event.target.closest('[name="again"]');
      if (!button) return;
      event.preventDefault();
      again(this.#promptOf(button.value), button.value);
    });
  }

  /** The Markdown of an inference's answer, its pieces a blank line apart. */
  async markdown(inferenceId) {
    const inference = this.#root.querySelector(`[data-entity-id="${CSS.escape(inferenceId)}"]`);
    const ids = [...inference.querySelectorAll('[data-card="assistant"]')].map(
      (element) => element.dataset.entityId,
    );
    let texts = ids.map((id) => this.#timeline.card(id).source);
    if (texts.includes(null)) texts = await this.#told(ids);
    return texts.join("\n\n");
  }

  async #told(ids) {
    const { entities } = await get(`/api/timeline?conv_id=${encodeURIComponent(this.#convId)}`);
    const contents = new Map(entities.map(({ id, props }) => [id, props.content]));
    return ids.map((id) => contents.get(id) ?? "");
  }

  /** What the person said before that inference began. */
  #promptOf(inferenceId) {
    const inference = this.#timeline.card(inferenceId).element;
    const before = (user) => inference.compareDocumentPosition(user) & Node.DOCUMENT_POSITION_PRECEDING;
    const said = [...this.#root.querySelectorAll('[data-card="user"]')].findLast(before);
    return said ? slot(said, "text").textContent : "";
  }
}
