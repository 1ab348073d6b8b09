import { InferenceCard } from "./cards/inference.js";
import { cardFor, cardForFrame, cardNamed } from "./kinds.js";
import { clone } from "./slot.js";
import { soon } from "./slices.js";

/** So many entities of a snapshot are shown at once, the older ones soon after. */
const NEWEST = 32;
/** So many cards make a part of the page, as on the server (chat/cards.py). */
const PART_CARDS = 16;

/**
 * The cards of a conversation, keyed by entity id. Starts from the server's own cards; a frame changes
 * one card, a snapshot all that differ. Cards sit in the inference that runs when they appear; a kind
 * with a `parentId` sits in that card.
 */
export class Timeline {
  #root;
  #cards = new Map();
  #found = new Map();
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
      const id = element.dataset.entityId;
      this.#found.set(id, element);
      this.#seqs.set(id, cursor.seq);
      if (element.dataset.card === InferenceCard.kind) inference = id;
      soon(() => this.card(id));
    }
    this.#inference = this.card(inference) ?? null;
  }

  /** The card of an entity; undefined when there is none. */
  card(id) {
    const entity = this.#late.get(id);
    this.#late.delete(id);
    if (entity) this.#cards.get(id).show(entity.props, entity.kind);
    return this.#cards.get(id) ?? this.#adopt(id);
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
   * Shows these entities and nothing else. What the page has already stays as it is, with its folds,
   * its focus and what a person has written in it.
   */
  replace({ epoch, entities }) {
    const seen = epoch === this.#epoch ? this.#seqs : new Map();
    for (const id of this.#found.keys()) this.#adopt(id);
    for (const id of this.#late.keys()) seen.delete(id);
    this.#late.clear();
    this.#epoch = epoch;
    this.#seqs = new Map(entities.map(({ id, updatedSeq }) => [id, updatedSeq]));
    const classes = new Map(entities.map((entity) => [entity.id, cardFor(entity)]));
    for (const [id, card] of this.#cards) {
      if (card.constructor.kind === classes.get(id)?.kind) continue;
      card.element.remove();
      this.#cards.delete(id);
      seen.delete(id);
    }
    this.#inference = null;
    let endSeq = 0;
    const filled = new Map();
    for (const [index, entity] of entities.entries()) {
      if (entity.createdSeq > endSeq) this.#inference = null;
      const card = this.#cards.get(entity.id) ?? this.#make(classes.get(entity.id), entity.id);
      this.#putNext(card, filled);
      this.#enter(card);
      const current = seen.get(entity.id) >= entity.updatedSeq;
      if (!current) this.#show(card, entity, entities.length - index > NEWEST);
      if (card === this.#inference) {
        endSeq = entity.props.status === "running" ? Infinity : entity.updatedSeq;
      }
    }
    while (this.#root.lastElementChild?.matches(":empty")) this.#root.lastElementChild.remove();
  }

  #adopt(id) {
    const element = this.#found.get(id);
    if (!element) return undefined;
    this.#found.delete(id);
    const card = new (cardNamed(element.dataset.card))(element);
    card.adopt?.();
    this.#cards.set(id, card);
    return card;
  }

  #show(card, entity, later) {
    if (!later) return card.show(entity.props, entity.kind);
    this.#late.set(entity.id, entity);
    soon(() => this.card(entity.id));
  }

  #open(Card, id) {
    const card = this.#make(Card, id);
    const place = this.#place(card);
    (place === this.#root ? this.#openPart() : place).append(card.element);
    this.#enter(card);
    return card;
  }

  #make(Card, id) {
    const element = clone(`card-${Card.kind}`);
    element.dataset.entityId = id;
    const card = new Card(element);
    this.#cards.set(id, card);
    return card;
  }

  /** The element that a card belongs into. */
  #place(card) {
    const parent = this.card(card.constructor.parentId?.(card.element.dataset.entityId));
    return (parent ?? this.#inference)?.cards ?? this.#root;
  }

  /** From an inference on, what follows sits in it. */
  #enter(card) {
    if (card instanceof InferenceCard) this.#inference = card;
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

  /** Puts the card after those that `filled` counts in its place, and counts it. */
  #putNext(card, filled) {
    let place = this.#place(card);
    let index = filled.get(place) ?? 0;
    filled.set(place, index + 1);
    if (place === this.#root) {
      place = place.children[Math.floor(index / PART_CARDS)] ?? this.#addPart();
      index %= PART_CARDS;
    }
    const there = place.children[index] ?? null;
    if (there !== card.element) place.insertBefore(card.element, there);
  }
}
