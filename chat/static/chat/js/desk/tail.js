import { ApiError, get } from "../api.js";
import { slot } from "../slot.js";
import { Stream } from "../stream.js";
import { serverClock } from "./clock.js";

const KEPT = 500;
const NAME_EVERY_MS = 1_500;
/** This close to the end counts as being there. */
const NEAR_PX = 40;

/** The frames of a conversation as `tail -f` shows a log; follows the same socket as any page. */
export class Tail {
  #element;
  #list;
  #type;
  #convId;
  #stream;
  #unnamed = null;
  #naming = null;

  constructor(element) {
    this.#element = element;
    this.#list = slot(element, "list");
    this.#type = element.querySelector("select");
    this.#convId = element.dataset.convId;
    this.#type.addEventListener("change", () => this.#filter());
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#filter();
    if (element.dataset.follow === "true") this.#follow();
  }

  #follow() {
    this.#stream = new Stream({
      convId: this.#convId,
      cursor: this.#element.dataset.cursor,
      onHello: () => {},
      onSnapshot: ({ version }) => this.#jump(version),
      onFrame: (event) => this.#add(event),
      onStatus: (status) => this.#say(status),
    });
    this.#stream.open();
  }

  #add(event) {
    const atEnd = this.#isAtEnd();
    const item = slot(this.#element, "frame").content.firstElementChild.cloneNode(true);
    const text = JSON.stringify({ sem: true, event });
    item.dataset.type = event.type;
    item.dataset.seq = event.seq;
    slot(item, "seq").textContent = event.seq;
    slot(item, "at").textContent = serverClock();
    slot(item, "type").textContent = event.type;
    slot(item, "size").textContent = `${new Blob([text]).size} bytes`;
    slot(item, "json").textContent = JSON.stringify({ sem: true, event }, null, 2);
    this.#know(event.type);
    item.hidden = !this.#shows(item);
    this.#list.append(item);
    while (this.#list.children.length > KEPT) this.#list.firstElementChild.remove();
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
    this.#unnamed ??= event.seq;
    this.#naming ??= setTimeout(() => this.#name(), NAME_EVERY_MS);
  }

  /** The log has moved on without us: say where the list is not whole. */
  #jump(version) {
    const item = document.createElement("li");
    item.textContent = `… not shown: frames up to ${version}`;
    item.className = "quiet";
    this.#list.append(item);
  }

  /** A socket does not say which event a frame came of; the debug API does. */
  async #name() {
    const since = this.#unnamed - 1;
    this.#unnamed = this.#naming = null;
    try {
      const path = `/api/debug/events/${encodeURIComponent(this.#convId)}`;
      const { events } = await get(`${path}?since_seq=${since}&limit=${KEPT}`);
      for (const { seq, event } of events) {
        const item = this.#list.querySelector(`[data-seq="${seq}"]`);
        if (item) slot(item, "event").textContent = event;
      }
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof TypeError)) throw error;
    }
  }

  /** Offers an app's own type to filter by once it was seen. */
  #know(type) {
    if ([...this.#type.options].some((option) => option.value === type)) return;
    this.#type.append(new Option(type));
  }

  #filter() {
    for (const item of this.#list.children) item.hidden = !this.#shows(item);
  }

  #shows(item) {
    const chosen = this.#type.value;
    return !chosen || !item.dataset.type || item.dataset.type === chosen;
  }

  #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    return scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }

  #say(status) {
    const words = {
      live: "Following live.",
      connecting: "Connecting…",
      waiting: "Not live: reconnecting.",
      offline: "Not live: you are offline.",
      stopped: `Not live: ${status.reason ?? "closed"}`,
    };
    const line = slot(this.#element, "status");
    if (line.textContent !== words[status.state]) line.textContent = words[status.state];
  }
}
