from __future__ import annotations

import msgspec
from django.apps import AppConfig

from chat.app_kinds import AppKind, Props, default_kinds
from sessions_app.inference.engine import Infer, Middleware
from sessions_app.inference.events import AppEvent, publish
from sessions_app.inference.middleware import default_registry
from sessions_app.inference.turns import Turn, User


class Prompted(AppConfig):
    name = "tests.standins.prompted"

    def ready(self) -> None:
        default_kinds.register(AppKind("slots", fold=latest, template="prompted/card.html"))
        default_kinds.register(
            AppKind("fragile", template="prompted/card.html", module="prompted/fragile.js")
        )
        default_registry.register("prompted", NoConfig)(prompted)


class NoConfig(msgspec.Struct):
    pass


class Said(msgspec.Struct):
    kind: str
    id: str
    props: dict[str, object]


def latest(before: Props, told: Props) -> Props:
    """Only what was told last; all else is gone."""
    return told


def prompted(config: NoConfig) -> Middleware:
    """Publishes the events that the prompt lists, and asks no model."""

    def middleware(infer: Infer) -> Infer:
        async def with_prompted(turn: Turn) -> Turn:
            prompts = [block.text for block in turn.blocks if isinstance(block, User)]
            for said in msgspec.json.decode(prompts[-1], type=list[Said]):
                publish(AppEvent(kind=said.kind, id=said.id, props=said.props))
            return turn

        return with_prompted

    return middleware
