"""Timeline entities → the cards of a page. Pure.

A card's name picks its template (`templates/chat/cards/<name>.html`) and, in the browser, its
module (`static/chat/js/cards/<name>.js`): a new kind of ours is one of each and its name here. A
kind of an app's brings its own (app_kinds.py); its card's name is that of its frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .app_kinds import AppKind, AppKinds
from .frames import APP_PREFIX
from .timeline import Entity

CARD_NAMES: Final = (
    "user",
    "assistant",
    "thinking",
    "inference",
    "tool_call",
    "tool_result",
    "debugger_pause",
    "agent_mode",
    "log",
    "other",
)

PART_CARDS: Final = 16
"""So many cards make a part of the page (static/chat/js/timeline.js)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card. An inference holds the cards that appeared while it ran, a call its result."""

    name: str
    id: str = ""
    kind: str = ""
    props: Mapping[str, Any] = field(default_factory=dict)  # the entity's, as the wire has them
    cards: list[Card] = field(default_factory=list)
    app: AppKind | None = None  # whose own template draws it

    @property
    def template(self) -> str:
        return f"chat/cards/{'app' if self.app else self.name}.html"


def blank_cards(kinds: AppKinds) -> list[Card]:
    """What the browser clones when a frame opens a card."""
    apps = [Card(name=_app_name(kind), app=kind) for kind in kinds if kind.template]
    return [*(Card(name=name) for name in CARD_NAMES), *apps]


def arrange(entities: Iterable[Entity], kinds: AppKinds) -> list[Card]:
    """The cards in order of first appearance, each inside the inference that ran at that time.

    The result of a tool sits inside the card of its call.
    """
    page: list[Card] = []
    calls: dict[str, Card] = {}
    running: Card | None = None
    last_seq = 0
    for entity in entities:
        card = _card(entity, kinds)
        if running is not None and entity.created_seq > last_seq:
            running = None
        parent = running
        if entity.kind == "tool_call":
            calls[entity.id] = card
        elif entity.kind == "tool_result":
            parent = calls.get(entity.id.removesuffix(":result"), running)
        (page if parent is None else parent.cards).append(card)
        if entity.kind == "inference":
            running = card
            ended = entity.props.get("status") != "running"
            last_seq = entity.updated_seq if ended else 2**53
    return page


def in_parts(cards: Sequence[Card]) -> list[Sequence[Card]]:
    """The cards in parts of the page, each of which a browser can leave out while out of sight."""
    return [cards[start : start + PART_CARDS] for start in range(0, len(cards), PART_CARDS)]


def _card(entity: Entity, kinds: AppKinds) -> Card:
    app = kinds.get(entity.kind)
    if app is None or not app.template:
        name, app = _name(entity), None
    else:
        name = _app_name(app)
    return Card(name=name, id=entity.id, kind=entity.kind, props=entity.props, app=app)


def _name(entity: Entity) -> str:
    name = entity.props.get("role") if entity.kind == "message" else entity.kind
    return name if name in CARD_NAMES else "other"


def _app_name(kind: AppKind) -> str:
    return f"{APP_PREFIX}{kind.kind}"
