import { post } from "./api.js";

/**
 * The choice of profile: it goes with the next prompt, is remembered for the next conversation, and
 * follows the session. What a person has chosen and not sent yet is theirs.
 */
export class Profiles {
  #select;
  #chosen = false;

  constructor(select) {
    this.#select = select;
    select.addEventListener("change", () => {
      this.#chosen = true;
      this.#remember();
    });
  }

  /** The session runs this profile. */
  show(slug) {
    if (!this.#chosen) this.#select.value = slug;
  }

  /** A prompt went out with the choice. */
  sent() {
    this.#chosen = false;
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
