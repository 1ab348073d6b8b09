"""Structured output: JSON that a model writes between tags goes to the app and not to the page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias
from uuid import uuid4

import msgspec

from ..engine import Infer, Middleware
from ..events import AppEvent, Log, publish
from ..turns import Turn
from .tagged import NOT_JSON, Tagged, TagScanner, infer_without, unreadable

logger = logging.getLogger(__name__)

OnValue: TypeAlias = Callable[[str, object], None]
"""Told the tag and the parsed value, within the inference: it may `publish`, and must not wait."""


def publish_value(tag: str, value: object) -> None:
    """The OnValue that tells the page: an AppEvent of the kind `tag`."""
    props = value if isinstance(value, dict) else {"value": value}
    publish(AppEvent(kind=tag, id=str(uuid4()), props=props))


def structured_output(tags: Sequence[str], on_value: OnValue = publish_value) -> Middleware:
    """Takes `<tag>JSON</tag>` out of the answer, and hands each value to `on_value` as it arrives.

    Neither the stream nor the history has such a block, however the stream was cut. A block that is
    no JSON is hidden as well and reported as a Log warning; a tag that is never closed was text.
    Raises ConfigurationError for a name that is no tag.
    """
    TagScanner(tags)

    def take(block: Tagged) -> None:
        try:
            value = msgspec.json.decode(block.text)
        except NOT_JSON as error:
            publish(unreadable(block, error))
            return
        try:
            on_value(block.tag, value)
        except Exception:
            # An app's callback; its failure must not cost anybody the answer.
            logger.exception("the receiver of <%s> blocks raised", block.tag)
            publish(Log(level="warning", message=f"A <{block.tag}> block was not processed."))

    def middleware(infer: Infer) -> Infer:
        async def with_structured_output(turn: Turn) -> Turn:
            answered, _ = await infer_without(tags, infer, turn, take)
            return answered

        return with_structured_output

    return middleware
