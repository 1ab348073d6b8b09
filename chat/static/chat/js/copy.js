/** Every copy button of the page: of a code block, of what a tool was given, of an answer. */
const SAID_MS = 2_000;

/** Gives a code block its copy button. */
export function addCopyButton(block) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button button-quiet code-copy";
  button.dataset.copy = "";
  button.textContent = "Copy";
  block.append(button);
}

/** Listens to the copy buttons inside `root`; `answer(id)` gives the Markdown of an inference. */
export function listenForCopies(root, answer) {
  root.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-copy], [data-copy-answer]");
    if (!button) return;
    if ("copy" in button.dataset) {
      const block = button.closest(".code-block").querySelector("pre");
      return copy(button, block.textContent);
    }
    copy(button, answer(button.closest("[data-entity-id]").dataset.entityId));
  });
}

/** `text` may be a promise: the permission to copy lasts a moment, a click is enough for both. */
async function copy(button, text) {
  const label = button.querySelector("span") ?? button;
  try {
    await navigator.clipboard.writeText(await text);
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not allowed";
  }
  setTimeout(() => (label.textContent = "Copy"), SAID_MS);
}
