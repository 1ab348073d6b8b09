import { slot } from "./slot.js";

/**
 * Says whether the page is live, in the masthead; counts the seconds to the next attempt, and shows
 * the way to the log-in page to who is signed out.
 */
export class Connection {
  #element;
  #retry;
  #logIn;
  #announcer;
  #status = null;
  #clock = null;
  #lost = false;

  constructor(element, { announcer, retry }) {
    this.#element = element;
    this.#announcer = announcer;
    this.#retry = slot(element, "retry");
    this.#retry.addEventListener("click", retry);
    this.#logIn = slot(element, "log-in");
  }

  show(status) {
    const wasLive = this.#status?.state === "live";
    this.#status = status;
    this.#element.hidden = false;
    this.#element.dataset.state = document.body.dataset.line = status.state;
    const stopped = status.state === "stopped";
    this.#offerRetry(status.state === "waiting" || (stopped && !status.signedOut));
    this.#logIn.hidden = !status.signedOut;
    clearInterval(this.#clock);
    if (status.state === "waiting") this.#clock = setInterval(() => this.#write(), 1_000);
    this.#write();
    this.#announce(wasLive);
  }

  #offerRetry(offered) {
    const focused = document.activeElement === this.#retry;
    this.#retry.hidden = !offered;
    if (focused && !offered) document.getElementById("main").focus({ preventScroll: true });
  }

  #write() {
    slot(this.#element, "text").textContent = words(this.#status);
  }

  /** Each loss and each return once, not every attempt between them. */
  #announce(wasLive) {
    const { state } = this.#status;
    if (wasLive && state !== "live") this.#lost = true;
    if (state === "offline" || state === "stopped") this.#announcer.say(words(this.#status));
    else if (state === "waiting" && wasLive) this.#announcer.say("Connection lost.");
    else if (state === "live" && this.#lost) {
      this.#lost = false;
      this.#announcer.say("Connected again.");
    }
  }
}

function words({ state, until, reason }) {
  if (state === "live") return "Live";
  if (state === "connecting") return "Connecting…";
  if (state === "offline") return "You are offline";
  if (state === "stopped") return reason;
  return `Reconnecting in ${Math.max(1, Math.ceil((until - Date.now()) / 1_000))} s`;
}
