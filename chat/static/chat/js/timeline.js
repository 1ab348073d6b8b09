import { InferenceCard } from "./cards/inference.js";
import { cardFor, cardForFrame, cardNamed } from "./kinds.js";
import { clone, slot } from "./slot.js";
import { soon } from "./slices.js";

/** So many cards make a part of the page, as on the server (chat/cards.py). */
const PART_CARDS = 16;

/**
 * The cards of a conversation, keyed by entity id. Starts from the server's own elements; a frame
 * changes one card, a snapshot all that differ. Cards sit in the inference that runs when they appear;
 * a kind with a `parentId` sits in that card.
 */
export class Timeline {
  #root;
  #elements = new Map();
  /** Of the elements those that scripts have taken over. */
  #cards = new Map();
  #late = new Map();
  #seqs = new Map();
  #epoch;
  #inference = null;

  /** `cursor` is the place in the log that the server's cards stand for. */
  constructor(root, cursor) {
    this.#root = root;
    this.#epoch = Number(cursor.epoch);
    let inference;
    for (const element of root.querySelectorAll("[data-entity-id]")) {
      const id = element.getAttribute("data-entity-id");
      this.#elements.set(id, element);
      this.#seqs.set(id, cursor.seq);
      if (element.getAttribute("data-card") === InferenceCard.kind) inference = id;
      soon(() => this.card(id));
    }
    this.#inference = this.card(inference) ?? null;
  }

  /** The card of an entity; undefined when there is none. */
  card(id) {
    const card = this.#cards.get(id) ?? this.#adopt(id);
    const entity = this.#late.get(id);
    this.#late.delete(id);
    if (entity) card.show(entity.props, entity.kind);
    return card;
  }

  /** Takes the next frame. A type that shows nothing is ignored. */
  apply(event) {
    const Card = cardForFrame(event.type);
    if (!Card) return;
    if (!this.#inference?.running) this.#inference = null;
    const id = Card.entityId?.(event) ?? event.id;
    const card = this.card(id) ?? this.#open(Card, id);
    Card.frames[event.type](card, event);
    this.#seqs.set(id, event.seq);
  }

  /**
   * Shows these entities and nothing else, what has changed soon, the newest first. What the page has
   * already stays as it is, with its folds, its focus and what a person has written in it.
   */
  replace({ epoch, entities }) {
    const seen = epoch === this.#epoch ? this.#seqs : new Map();
    for (const id of this.#late.keys()) seen.delete(id);
    this.#late.clear();
    this.#epoch = epoch;
    this.#seqs = new Map(entities.map(({ id, updatedSeq }) => [id, updatedSeq]));
    const classes = new Map(entities.map((entity) => [entity.id, cardFor(entity)]));
    this.#removeOthers(classes, seen);
    let inference;
    let endSeq = 0;
    const filled = new Map();
    for (const { id, props, kind, createdSeq, updatedSeq } of entities) {
      if (createdSeq > endSeq) inference = undefined;
      const Card = classes.get(id);
      const element = this.#elements.get(id) ?? this.#make(Card, id).element;
      this.#putNext(element, this.#place(Card, id, inference), filled);
      if (Card === InferenceCard) {
        inference = element;
        endSeq = props.status === "running" ? Infinity : updatedSeq;
      }
      if (seen.get(id) >= updatedSeq) continue;
      this.#late.set(id, { props, kind });
      soon(() => this.card(id));
    }
    this.#inference = this.card(inference?.dataset.entityId) ?? null;
    while (this.#root.lastElementChild?.matches(":empty")) this.#root.lastElementChild.remove();
  }

  #removeOthers(classes, seen) {
    for (const [id, element] of this.#elements) {
      if (cardNamed(element.getAttribute("data-card")).kind === classes.get(id)?.kind) continue;
      element.remove();
      this.#elements.delete(id);
      this.#cards.delete(id);
      seen.delete(id);
    }
  }

  #adopt(id) {
    const element = this.#elements.get(id);
    if (!element) return undefined;
    const card = new (cardNamed(element.getAttribute("data-card")))(element);
    this.#cards.set(id, card);
    card.adopt?.();
    return card;
  }

  #open(Card, id) {
    const card = this.#make(Card, id);
    const place = this.#place(Card, id, this.#inference?.element);
    (place === this.#root ? this.#openPart() : place).append(card.element);
    if (Card === InferenceCard) this.#inference = card;
    return card;
  }

  #make(Card, id) {
    const element = clone(`card-${Card.kind}`);
    element.dataset.entityId = id;
    const card = new Card(element);
    this.#elements.set(id, element);
    this.#cards.set(id, card);
    return card;
  }

  /** The element that a card belongs into, while this inference's element takes what appears. */
  #place(Card, id, inference) {
    const parent = this.#elements.get(Card.parentId?.(id)) ?? inference;
    return (parent && slot(parent, "cards")) ?? this.#root;
  }

  /** The part that the next card of the page itself belongs into. */
  #openPart() {
    const last = this.#root.lastElementChild;
    return last?.childElementCount < PART_CARDS ? last : this.#addPart();
  }

  #addPart() {
    const part = document.createElement("div");
    part.className = "timeline-part";
    this.#root.append(part);
    return part;
  }

  /** Puts the element after those that `filled` counts in its place, and counts it. */
  #putNext(element, place, filled) {
    let index = filled.get(place) ?? 0;
    filled.set(place, index + 1);
    if (place === this.#root) {
      place = place.children[Math.floor(index / PART_CARDS)] ?? this.#addPart();
      index %= PART_CARDS;
    }
    const there = place.children[index] ?? null;
    if (there !== element) place.insertBefore(element, there);
  }
}
