import { changed } from "../props.js";
import { readable } from "../readable.js";

/** What modules have exported, by address: a card that comes later is drawn without a wait. */
const classes = new Map();

/**
 * An entity of an app's kind, drawn by the app's template. Its slots show the props of their names;
 * where the app has a module, its default export is made with the element and shown all props, once
 * it is there and whenever one changes. Nothing that an app's module throws leaves this card.
 */
export class AppCard {
  #props = {};
  #own = null;
  #waiting = false;

  constructor(element) {
    this.element = element;
    const { module } = element.dataset;
    if (classes.has(module)) this.#begin(classes.get(module));
    else if (module) this.#bring(module);
  }

  /** The server's own card brings its props; one that was shown by a script has none to bring. */
  adopt() {
    const { props } = this.element.dataset;
    if (props === undefined) return;
    delete this.element.dataset.props;
    this.show(JSON.parse(props));
  }

  show(props) {
    this.#props = props;
    this.#draw();
  }

  take(data) {
    this.show(changed(this.#props, data));
  }

  async #bring(module) {
    this.#waiting = true;
    try {
      const { default: Own } = await import(module);
      classes.set(module, Own);
      this.#begin(Own);
    } catch (error) {
      console.error(error);
    }
    this.#waiting = false;
    this.#draw();
  }

  #begin(Own) {
    try {
      this.#own = new Own(this.element);
    } catch (error) {
      console.error(error);
    }
  }

  #draw() {
    if (this.#waiting) return;
    try {
      if (this.#own) return this.#own.show(this.#props);
    } catch (error) {
      console.error(error);
      this.#own = null;
    }
    for (const place of this.element.querySelectorAll("[data-slot]")) {
      const name = place.dataset.slot;
      place.textContent = Object.hasOwn(this.#props, name) ? readable(this.#props[name]) : "";
    }
  }
}
