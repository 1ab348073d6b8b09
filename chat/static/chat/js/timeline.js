import { InferenceCard } from "./cards/inference.js";
import { cardFor, cardForFrame, cardNamed } from "./kinds.js";
import { clone } from "./slot.js";

/**
 * The cards of a conversation, keyed by entity id. Starts from the server's own cards; a frame changes
 * one card, a snapshot replaces all. Cards sit in the inference that runs when they appear; a kind
 * with a `parentId` sits in that card.
 */
export class Timeline {
  #root;
  #cards = new Map();
  #inference = null;

  constructor(root) {
    this.#root = root;
    for (const element of root.querySelectorAll("[data-entity-id]")) {
      const card = new (cardNamed(element.dataset.card))(element);
      card.adopt?.();
      this.#cards.set(element.dataset.entityId, card);
      if (card instanceof InferenceCard) this.#inference = card;
    }
  }

  /** Takes the next frame. A type that shows nothing is ignored. */
  apply(event) {
    const Card = cardForFrame(event.type);
    if (!Card) return;
    if (!this.#inference?.running) this.#inference = null;
    const id = Card.entityId?.(event) ?? event.id;
    const card = this.#cards.get(id) ?? this.#open(Card, id);
    Card.frames[event.type](card, event);
  }

  /** Shows these entities and nothing else. */
  replace(entities) {
    this.#root.replaceChildren();
    this.#cards.clear();
    this.#inference = null;
    let endSeq = 0;
    for (const entity of entities) {
      if (entity.createdSeq > endSeq) this.#inference = null;
      const card = this.#open(cardFor(entity), entity.id);
      card.show(entity.props, entity.kind);
      if (card === this.#inference) endSeq = card.running ? Infinity : entity.updatedSeq;
    }
  }

  #open(Card, id) {
    const element = clone(`card-${Card.kind}`);
    element.dataset.entityId = id;
    const card = new Card(element);
    this.#cards.set(id, card);
    const parent = this.#cards.get(Card.parentId?.(id)) ?? this.#inference;
    (parent?.cards ?? this.#root).append(element);
    if (card instanceof InferenceCard) this.#inference = card;
    return card;
  }
}
