import { ApiError, post } from "../api.js";
import { serverNow } from "../clock.js";
import { readable } from "../readable.js";
import { clone, slot } from "../slot.js";

const TICK_MS = 1_000;

/** The agent waits for a person: what it would do, the choice, and what was decided. */
export class DebuggerPauseCard {
  static kind = "debugger_pause";
  static frames = {
    "debugger.pause": (card, event) => card.show({ ...event.data, open: true }),
    "debugger.resumed": (card, event) => card.decided(event.data),
  };

  #timer = null;
  #deciding = false;

  constructor(element) {
    this.element = element;
    element.addEventListener("input", ({ target }) => this.#edited(target));
    element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-decision]");
      if (!button) return;
      event.preventDefault();
      this.#decide(button.dataset.decision);
    });
  }

  adopt() {
    if (!this.element.hasAttribute("data-open")) return;
    this.#takeBack();
    this.#countDown();
  }

  show({ phase, summary, deadlineMs, onTimeout, extra, open, decision, by }) {
    Object.assign(this.element.dataset, { phase, deadlineMs, onTimeout });
    slot(this.element, "summary").textContent = summary;
    const calls = (extra.toolCalls ?? []).map((call) => this.#call(call));
    const results = (extra.results ?? []).map((result) => step(result.name, result.result, result.status));
    slot(this.element, "steps").replaceChildren(...calls, ...results);
    if (!open) return this.decided({ decision, by });
    const id = this.element.dataset.entityId;
    slot(this.#choice, "message").name = `message:${id}`;
    for (const button of this.#choice.querySelectorAll("[data-decision]")) {
      button.value = `${button.dataset.decision}:${id}`;
    }
    this.element.toggleAttribute("data-open", true);
    this.#takeBack();
    this.#countDown();
  }

  decided({ decision, by }) {
    clearInterval(this.#timer);
    const hadFocus = this.element.contains(document.activeElement);
    const outcome = slot(this.element, "outcome");
    for (const words of outcome.querySelectorAll("[data-when]")) {
      words.hidden = words.dataset.when !== decision;
    }
    slot(outcome, "by").textContent = by;
    outcome.hidden = false;
    for (const field of this.#fields) sessionStorage.removeItem(field.name);
    for (const text of this.#arguments) {
      const name = slot(text.parentElement, "name").textContent;
      text.parentElement.replaceWith(step(name, shown(text)));
    }
    this.#choice?.remove();
    this.element.toggleAttribute("data-open", false);
    if (hadFocus) outcome.focus();
    slot(this.element, "countdown").textContent = "";
    slot(this.element, "error").textContent = "";
  }

  /** How it ended and by whom, in words. */
  get outcome() {
    const outcome = slot(this.element, "outcome");
    const words = outcome.querySelector("[data-when]:not([hidden])").textContent;
    return `${words}, by ${slot(outcome, "by").textContent}.`;
  }

  /** There as long as somebody may choose. */
  get #choice() {
    return slot(this.element, "choice");
  }

  get #arguments() {
    return [...this.element.querySelectorAll('[data-slot="arguments"]')];
  }

  get #fields() {
    return this.element.querySelectorAll("textarea");
  }

  /** What the person had written here before this tab was reloaded. */
  #takeBack() {
    for (const field of this.#fields) field.value = sessionStorage.getItem(field.name) ?? field.value;
    const message = slot(this.#choice, "message");
    if (message.value) message.closest("details").open = true;
    this.#label();
  }

  #call({ id, name, input }) {
    const element = clone("pause-call");
    slot(element, "name").textContent = name;
    const text = slot(element, "arguments");
    text.name = `edit:${this.element.dataset.entityId}:${id}`;
    text.defaultValue = readable(input);
    text.setAttribute("aria-label", `Arguments of ${name}`);
    return element;
  }

  #edited(text) {
    sessionStorage.setItem(text.name, text.value);
    if (text.dataset.slot !== "arguments") return;
    problem(text, "");
    this.#label();
  }

  /** To continue with arguments that were changed is called so. */
  #label() {
    const changed = this.#arguments.some(isChanged);
    slot(this.#choice, "plain").hidden = changed;
    slot(this.#choice, "changed").hidden = !changed;
  }

  async #decide(decision) {
    if (this.#deciding) return;
    const body = this.#body(decision);
    if (!body) return;
    this.#enable(false);
    try {
      const { pause } = await post("/api/debug/continue", body);
      this.decided(pause);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.answer.pause) return this.decided(error.answer.pause);
      slot(this.element, "error").textContent = error.message;
      this.#enable(true);
    }
  }

  /** What is sent; null when arguments cannot be read, which is then said beside them. */
  #body(decision) {
    const body = {
      conv_id: this.element.closest("[data-conversation]").dataset.convId,
      pause_id: this.element.dataset.entityId,
      decision,
    };
    slot(this.element, "error").textContent = "";
    if (decision === "skip") body.message = slot(this.#choice, "message").value;
    const changed = decision === "continue" ? this.#arguments.filter(isChanged) : [];
    if (changed.length === 0) return body;
    const edits = changed.map((text) => [text.name.split(":").slice(2).join(":"), read(text)]);
    const unreadable = changed.find((text) => text.getAttribute("aria-invalid"));
    unreadable?.focus();
    return unreadable ? null : { ...body, decision: "edit", edits: Object.fromEntries(edits) };
  }

  /** Not `disabled`: that would take the focus away from somebody who works by keyboard. */
  #enable(enabled) {
    this.#deciding = !enabled;
    for (const button of this.element.querySelectorAll("button")) {
      if (enabled) button.removeAttribute("aria-disabled");
      else button.setAttribute("aria-disabled", "true");
    }
  }

  #countDown() {
    clearInterval(this.#timer);
    this.#tick();
    // A snapshot may have taken this card away since.
    this.#timer = setInterval(() => {
      if (this.element.isConnected) this.#tick();
      else clearInterval(this.#timer);
    }, TICK_MS);
  }

  /** To the nearest second: the server's clock is known a little late, and 0:31 of 30 is none. */
  #tick() {
    const left = Math.max(0, Math.round((this.element.dataset.deadlineMs - serverNow()) / 1_000));
    const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    const what = this.element.dataset.onTimeout === "deny" ? "Refused" : "Continues";
    slot(this.element, "countdown").textContent = `${what} by itself in ${clock}`;
  }
}

function step(name, text, status = "") {
  const element = clone("pause-step");
  slot(element, "name").textContent = name;
  slot(element, "status").textContent = status;
  slot(element, "text").textContent = text;
  return element;
}

function isChanged(text) {
  return text.value !== shown(text);
}

/** The arguments as they were shown first; the server keeps them where it gives back what was refused. */
function shown(text) {
  return text.dataset.shown ?? text.defaultValue;
}

/** The arguments in the field; what is wrong with them is said beside it. */
function read(text) {
  try {
    const value = JSON.parse(text.value);
    if (value && typeof value === "object" && !Array.isArray(value)) return value;
    problem(text, 'These are not arguments: expected a JSON object, { "name": value }.');
  } catch (error) {
    problem(text, `This is not JSON yet: ${error.message}.`);
  }
  return null;
}

function problem(text, sentence) {
  slot(text.parentElement, "problem").textContent = sentence;
  if (sentence) text.setAttribute("aria-invalid", "true");
  else text.removeAttribute("aria-invalid");
}
