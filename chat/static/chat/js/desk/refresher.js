import { serverClock } from "./clock.js";

const EVERY_MS = 3_000;
const SLOWEST_MS = 30_000;
const PATIENCE_MS = 10_000;

/**
 * Asks again and again for the live part of this page, and says how fresh what is shown is.
 *
 * Rests while the page is hidden or paused. When the server does not answer it says so and since when, and
 * asks ever more seldom.
 */
export class Refresher {
  #freshness;
  #address;
  #apply;
  #timer = null;
  #request = null;
  #failures = 0;
  #asOf = Date.now();
  #paused = false;
  #over = false;

  /** `apply(document)` shows the fresh part; what it returns is added to what is said. */
  constructor(freshness, { address, apply }) {
    this.#freshness = freshness;
    this.#address = address;
    this.#apply = apply;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.#wake());
    addEventListener("online", () => this.#wake());
    addEventListener("offline", () => this.#say("offline", "You are offline."));
    this.#freshness.onPause((paused) => {
      this.#paused = paused;
      if (paused) this.#say("paused", "Not refreshing.");
      this.#wake();
    });
    this.#freshness.say("live", `Live, as of ${this.#clock()}.`);
    this.#schedule(EVERY_MS);
  }

  #wake() {
    clearTimeout(this.#timer);
    if (this.#resting()) return;
    this.#ask();
  }

  #resting() {
    return this.#over || this.#paused || document.hidden;
  }

  #schedule(delay) {
    clearTimeout(this.#timer);
    if (!this.#resting()) this.#timer = setTimeout(() => this.#ask(), delay);
  }

  /** One question at a time: a newer one makes the answer to the older unwanted. */
  async #ask() {
    clearTimeout(this.#timer);
    const request = (this.#request = {});
    const isOver = () => this.#request !== request || this.#resting();
    try {
      const answer = await fetch(this.#address(), {
        headers: { "X-Live-Part": "1" },
        redirect: "manual",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      const text = await answer.text();
      if (isOver()) return;
      if (!answer.ok) return this.#refused(answer);
      const fresh = new DOMParser().parseFromString(text, "text/html");
      const note = this.#apply(fresh);
      this.#failures = 0;
      this.#asOf = Date.now();
      this.#freshness.say("live", [`Live, as of ${this.#clock()}.`, note].filter(Boolean).join(" "));
      this.#schedule(EVERY_MS);
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
      if (isOver()) return;
      this.#failed(navigator.onLine ? "The server does not answer." : "You are offline.");
    }
  }

  #refused({ status, type }) {
    if (status === 404) return this.#end("This session is gone: unloaded and forgotten.");
    if (status === 403 || type === "opaqueredirect")
      return this.#end("You are signed out, or may not see this any more. Reload the page.");
    this.#failed("The server cannot answer now.");
  }

  #failed(why) {
    this.#failures += 1;
    this.#say("offline", why);
    this.#schedule(Math.min(SLOWEST_MS, EVERY_MS * 2 ** Math.min(this.#failures, 5)));
  }

  #end(why) {
    this.#over = true;
    this.#say("over", why);
  }

  #say(state, why) {
    if (this.#over && state !== "over") return;
    this.#freshness.say(state, `${why} What you see is of ${this.#clock()}.`);
  }

  #clock() {
    return serverClock(this.#asOf).slice(0, 8);
  }
}
