import { InferenceCard } from "./cards/inference.js";
import { cardFor, cardForFrame, cardNamed } from "./kinds.js";
import { clone } from "./slot.js";

/**
 * The cards of a conversation, keyed by entity id. Starts from the server's own cards; a frame changes
 * one card, a snapshot all that differ. Cards sit in the inference that runs when they appear; a kind
 * with a `parentId` sits in that card.
 */
export class Timeline {
  #root;
  #cards = new Map();
  #seqs = new Map();
  #epoch;
  #inference = null;

  /** `cursor` is the place in the log that the server's cards stand for. */
  constructor(root, cursor) {
    this.#root = root;
    this.#epoch = Number(cursor.epoch);
    for (const element of root.querySelectorAll("[data-entity-id]")) {
      const id = element.dataset.entityId;
      const card = new (cardNamed(element.dataset.card))(element);
      card.adopt?.();
      this.#cards.set(id, card);
      this.#seqs.set(id, cursor.seq);
      if (card instanceof InferenceCard) this.#inference = card;
    }
  }

  /** The card of an entity; undefined when there is none. */
  card(id) {
    return this.#cards.get(id);
  }

  /** Takes the next frame. A type that shows nothing is ignored. */
  apply(event) {
    const Card = cardForFrame(event.type);
    if (!Card) return;
    if (!this.#inference?.running) this.#inference = null;
    const id = Card.entityId?.(event) ?? event.id;
    const card = this.#cards.get(id) ?? this.#open(Card, id);
    Card.frames[event.type](card, event);
    this.#seqs.set(id, event.seq);
  }

  /**
   * Shows these entities and nothing else. What the page has already stays as it is, with its folds,
   * its focus and what a person has written in it.
   */
  replace({ epoch, entities }) {
    const seen = epoch === this.#epoch ? this.#seqs : new Map();
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
    for (const entity of entities) {
      if (entity.createdSeq > endSeq) this.#inference = null;
      const card = this.#cards.get(entity.id) ?? this.#make(classes.get(entity.id), entity.id);
      this.#putNext(card, filled);
      this.#enter(card);
      const current = seen.get(entity.id) >= entity.updatedSeq;
      if (!current) card.show(entity.props, entity.kind);
      if (card === this.#inference) endSeq = card.running ? Infinity : entity.updatedSeq;
    }
  }

  #open(Card, id) {
    const card = this.#make(Card, id);
    this.#place(card).append(card.element);
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
    const parent = this.#cards.get(card.constructor.parentId?.(card.element.dataset.entityId));
    return (parent ?? this.#inference)?.cards ?? this.#root;
  }

  /** From an inference on, what follows sits in it. */
  #enter(card) {
    if (card instanceof InferenceCard) this.#inference = card;
  }

  /** Puts the card after those that `filled` counts in its place, and counts it. */
  #putNext(card, filled) {
    const place = this.#place(card);
    const index = filled.get(place) ?? 0;
    filled.set(place, index + 1);
    const there = place.children[index] ?? null;
    if (there !== card.element) place.insertBefore(card.element, there);
  }
}
