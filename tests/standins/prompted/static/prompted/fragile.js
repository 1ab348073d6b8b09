/** Shows its props as the template does, until the level is high; `drawn` is what it drew last. */
export default class Fragile {
  constructor(element) {
    this.element = element;
  }

  show({ level, why = "" }) {
    if (level === "high") throw new RangeError("too high");
    this.element.querySelector("[data-slot=level]").textContent = level;
    this.element.querySelector("[data-slot=why]").textContent = why;
    this.element.drawn = level;
  }
}
