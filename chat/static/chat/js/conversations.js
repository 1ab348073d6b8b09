import { ApiError, get, isSignedOut } from "./api.js";
import { serverNow } from "./clock.js";
import { clone, slot } from "./slot.js";

const REFRESH_MS = 60_000;
const REFRESH_RUNNING_MS = 5_000;
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** The list of the person's conversations, kept true while the page is looked at. */
export class Conversations {
  #element;
  #onTitle;
  #timer = null;

  /** `onTitle(title)` hears the title of the conversation that the page shows. */
  constructor(element, { onTitle }) {
    this.#element = element;
    this.#onTitle = onTitle;
    addEventListener("pageshow", (event) => event.persisted && this.refresh());
    addEventListener("visibilitychange", () => this.refresh());
    this.#refreshAfter(element.querySelector("[data-running]:not([hidden])"));
  }

  /** The rows stay as they are for who is signed out, and would be told of none. */
  async refresh() {
    clearTimeout(this.#timer);
    if (document.hidden || isSignedOut()) return;
    let running = false;
    try {
      const rows = await get("/api/conversations");
      if (isSignedOut()) return;
      running = rows.some((row) => row.running);
      this.#show(rows);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    this.#refreshAfter(running);
  }

  #refreshAfter(running) {
    clearTimeout(this.#timer);
    const wait = running ? REFRESH_RUNNING_MS : REFRESH_MS;
    this.#timer = setTimeout(() => this.refresh(), wait);
  }

  #show(rows) {
    const focused = document.activeElement?.getAttribute("href");
    const elements = rows.map((row) => this.#row(row));
    slot(this.#element, "rows").replaceChildren(...elements);
    slot(this.#element, "none").hidden = rows.length > 0;
    if (focused) this.#element.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  #row({ conv_id: convId, title, running, paused, last_activity_ms: lastActivityMs }) {
    const element = clone("conversation-row");
    const link = slot(element, "link");
    link.href = `/c/${encodeURIComponent(convId)}/`;
    if (title) slot(element, "title").textContent = title;
    slot(element, "answering").hidden = !running || paused;
    slot(element, "paused").hidden = !paused;
    const time = slot(element, "time");
    time.dateTime = new Date(lastActivityMs).toISOString();
    time.textContent = ago(lastActivityMs);
    if (convId === this.#element.dataset.current) {
      link.setAttribute("aria-current", "page");
      if (title) this.#onTitle(title);
    }
    return element;
  }
}

/** How long ago, in the words of chat/templatetags/cards.py. */
function ago(unixMs) {
  const seconds = (serverNow() - unixMs) / 1_000;
  for (const [unit, length] of UNITS) {
    const count = Math.floor(seconds / length);
    if (count >= 1) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}
