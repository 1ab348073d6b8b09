/** Shows its props until the level is high. */
export default class Fragile {
  constructor(element) {
    this.element = element;
  }

  show({ level, why = "" }) {
    if (level === "high") throw new RangeError("too high");
    this.element.querySelector("[data-slot=level]").textContent = `${level}, by the module`;
    this.element.querySelector("[data-slot=why]").textContent = why;
  }
}
