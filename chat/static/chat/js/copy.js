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

/**
 * Listens to the copy buttons inside `root`. `answer(id)` gives the Markdown of an inference, `told` is
 * given the outcome in words.
 */
export function listenForCopies(root, { answer, told }) {
  root.addEventListener("click", async ({ target }) => {
    const button = target.closest("[data-copy], [data-copy-answer]");
    if (!button) return;
    const text =
      "copy" in button.dataset
        ? button.closest(".code-block").querySelector("pre").textContent
        : answer(button.closest("[data-entity-id]").dataset.entityId);
    told(await copy(button, text));
  });
}

/** `text` may be a promise. The outcome stands on the button for a moment. */
async function copy(button, text) {
  const label = button.querySelector("span") ?? button;
  try {
    await navigator.clipboard.writeText(await text);
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not copied";
  }
  setTimeout(() => (label.textContent = "Copy"), SAID_MS);
  return label.textContent;
}
