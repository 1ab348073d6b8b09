/** Lets every `data-until` (Unix milliseconds) in the page count down by the second. */
export function countDown() {
  setInterval(() => {
    for (const element of document.querySelectorAll("[data-until]"))
      element.textContent = words(Number(element.dataset.until) - Date.now());
  }, 1_000);
}

function words(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1_000));
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
