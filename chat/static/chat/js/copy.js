/** Gives a code block its copy button. */
const SAID_MS = 2_000;

export function addCopyButton(block) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button button-quiet code-copy";
  button.textContent = "Copy";
  button.addEventListener("click", () => copy(button, block.querySelector("code").textContent));
  block.append(button);
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = "Copy"), SAID_MS);
}
