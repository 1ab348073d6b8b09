const BOXES = "input.action-select";

/** The ticked rows of the list: select all, the count beside the action, Shift for a range. */
export class Selection {
  #form;
  #last = null;

  constructor(form) {
    this.#form = form;
    form.addEventListener("click", (event) => this.#clicked(event));
    form.addEventListener("change", () => this.show());
    this.show();
  }

  get isEmpty() {
    return this.#ticked().length === 0;
  }

  show() {
    const boxes = this.#boxes();
    const ticked = this.#ticked();
    const counter = this.#form.querySelector("[data-selected]");
    if (counter) counter.textContent = `${ticked.length} of ${boxes.length} selected`;
    const toggle = this.#form.querySelector("[data-toggle]");
    if (!toggle) return;
    toggle.hidden = false;
    toggle.checked = boxes.length > 0 && ticked.length === boxes.length;
    toggle.indeterminate = ticked.length > 0 && ticked.length < boxes.length;
  }

  #clicked({ target, shiftKey }) {
    if (target.matches("[data-toggle]")) {
      for (const box of this.#boxes()) box.checked = target.checked;
    } else if (target.matches(BOXES)) {
      const boxes = this.#boxes();
      if (shiftKey && this.#last?.isConnected) {
        const ends = [boxes.indexOf(this.#last), boxes.indexOf(target)].sort((a, b) => a - b);
        for (const box of boxes.slice(ends[0], ends[1] + 1)) box.checked = target.checked;
      }
      this.#last = target;
    } else return;
    this.show();
  }

  #boxes() {
    return [...this.#form.querySelectorAll(BOXES)];
  }

  #ticked() {
    return this.#boxes().filter((box) => box.checked);
  }
}
