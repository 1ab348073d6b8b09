/** This close to the lower edge counts as being there. */
const NEAR = 64;

/** Keeps the newest words in sight until the person scrolls up; a button leads back. */
export class StickyScroll {
  #button;
  #page = document.scrollingElement;
  #following = true;
  #lastTop = 0;

  constructor(button, { onJump }) {
    this.#button = button;
    history.scrollRestoration = "manual";
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.follow();
      onJump();
    });
    new ResizeObserver(() => this.#grown()).observe(document.documentElement);
  }

  /** Goes to the end and stays there. */
  follow() {
    this.#following = true;
    this.#grown();
  }

  #grown() {
    if (this.#following) this.#page.scrollTop = this.#page.scrollHeight;
    this.#update();
  }

  #scrolled() {
    const top = this.#page.scrollTop;
    if (this.#atEnd) this.#following = true;
    else if (top < this.#lastTop) this.#following = false;
    this.#lastTop = top;
    this.#update();
  }

  #update() {
    this.#button.hidden = this.#following || this.#atEnd;
  }

  get #atEnd() {
    return this.#page.scrollHeight - innerHeight - this.#page.scrollTop < NEAR;
  }
}
