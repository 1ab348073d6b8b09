import { ApiError, post } from "./api.js";

/** The switch of step mode: the agent stops before and after its tools. It shows the session's state. */
export class StepMode {
  #button;
  #convId;
  #onError;

  constructor(button, { convId, onError }) {
    this.#button = button;
    this.#convId = convId;
    this.#onError = onError;
    button.addEventListener("click", (event) => {
      event.preventDefault();
      this.#switch();
    });
  }

  show(enabled) {
    this.#button.setAttribute("aria-pressed", enabled);
    this.#button.value = enabled ? "off" : "on";
  }

  async #switch() {
    const enabled = this.#button.value === "on";
    try {
      await post("/api/debug/step-mode", { conv_id: this.#convId, enabled });
      this.show(enabled);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#onError(error.message);
    }
  }
}
