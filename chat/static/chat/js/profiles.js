import { post } from "./api.js";

/** The choice of profile: remembered for the next conversation, and changed by the session. */
export class Profiles {
  #select;

  constructor(select) {
    this.#select = select;
    select.addEventListener("change", () => this.#remember());
  }

  /** The session runs this profile now. */
  show(slug) {
    this.#select.value = slug;
  }

  async #remember() {
    try {
      await post("/api/chat/profile", { slug: this.#select.value });
      this.#select.setCustomValidity("");
    } catch (error) {
      this.#select.setCustomValidity(error.message);
      this.#select.reportValidity();
    }
  }
}
