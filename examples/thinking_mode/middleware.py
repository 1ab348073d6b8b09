"""The middleware `thinking-mode`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from sessions_app.inference.engine import Infer, Middleware
from sessions_app.inference.events import AppEvent, publish
from sessions_app.inference.turns import Block, Reasoning, System, Turn, User

from .events import KIND


class ThinkingLevels(msgspec.Struct, frozen=True, kw_only=True):
    """What the model is told at each level. The first is the one without being asked."""

    levels: Annotated[dict[str, str], msgspec.Meta(min_length=1)]


def thinking_mode(config: ThinkingLevels) -> Middleware:
    """A prompt that says `think <level>` sets the level of its answer.

    One card for each answer: its level before the first word, and after each model call the words
    of thought that it took.
    """

    def middleware(infer: Infer) -> Infer:
        async def with_thinking_mode(turn: Turn) -> Turn:
            card = f"{KIND}:{turn.metadata.inference_id}"
            level = level_of(turn, config)
            publish(AppEvent(kind=KIND, id=card, props={"level": level}))
            told = System(id=KIND, text=config.levels[level])
            told_first = msgspec.structs.replace(turn, blocks=(told, *turn.blocks))
            answered = (await infer(told_first)).without(KIND)
            words = words_of_thought(answered.blocks[len(turn.blocks) :])
            publish(AppEvent(kind=KIND, id=card, props={"words": words}))
            return answered

        return with_thinking_mode

    return middleware


def level_of(turn: Turn, config: ThinkingLevels) -> str:
    """The level that the last prompt asks for, or the first."""
    prompts = [block.text for block in turn.blocks if isinstance(block, User)]
    asked = re.findall(r"\bthink ([\w-]+)", prompts[-1] if prompts else "", re.IGNORECASE)
    return next((name for name in asked if name in config.levels), next(iter(config.levels)))


def words_of_thought(blocks: Iterable[Block]) -> int:
    return sum(len(block.text.split()) for block in blocks if isinstance(block, Reasoning))
