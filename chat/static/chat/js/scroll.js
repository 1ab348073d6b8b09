/** This close to the end, the button that leads there is not needed. */
const NEAR = 64;

/**
 * Keeps the newest words in sight until the person scrolls up; a button leads back.
 *
 * The body scrolls from its end (shell.css): there it stays by itself, and elsewhere the browser keeps
 * what is looked at in its place.
 */
export class StickyScroll {
  #button;
  #page = document.body;
  #content = document.querySelector(".shell");
  #following = true;
  #lastTop = 0;
  #height = 0;

  constructor(button, { onJump }) {
    this.#button = button;
    this.#following = this.#atEnd;
    this.#lastTop = this.#page.scrollTop;
    this.#page.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.follow();
      onJump();
    });
    new ResizeObserver(() => this.#grown()).observe(this.#content);
  }

  /** Goes to the end and stays there. */
  follow() {
    this.#following = true;
    this.#page.scrollTop = 0;
    this.#update();
  }

  #grown() {
    const height = this.#content.offsetHeight;
    if (this.#following) this.#page.scrollTop = 0;
    else if (!anchors()) this.#page.scrollTop -= height - this.#height;
    this.#height = height;
    this.#update();
  }

  #scrolled() {
    const top = this.#page.scrollTop;
    if (top < this.#lastTop) this.#following = false;
    else if (this.#atEnd) this.#following = true;
    this.#lastTop = top;
    this.#update();
  }

  #update() {
    this.#button.hidden = this.#following || this.#atEnd;
  }

  get #atEnd() {
    return this.#page.scrollTop > -NEAR;
  }
}

/** Whether the browser itself keeps in place what is looked at. */
function anchors() {
  return CSS.supports("overflow-anchor", "auto");
}
