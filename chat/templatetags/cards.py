"""What the card templates need beyond Django's own tags."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from time import time

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from ..cards import Card
from ..markdown import render

logger = logging.getLogger(__name__)

SHORT_CHARACTERS = 400
SHORT_LINES = 8

register = template.Library()


@register.simple_tag
def app_card(card: Card) -> SafeString:
    """What an app's own template makes of its card, from `props` alone.

    One that raises, which may be for what a model wrote, must not cost anybody the page: the card
    is drawn blank, and the browser fills it.
    """
    assert card.app is not None
    for props in (card.props, {}):
        try:
            return render_to_string(card.app.template, {"props": props})
        except Exception:
            logger.exception("template %s could not be rendered", card.app.template)
    return SafeString("")


@register.filter
def markdown(source: str) -> SafeString:
    """A finished answer as HTML."""
    return render(source)


@register.filter
def readable_json(value: object) -> str:
    """A value as JSON, a string as it is; the browser writes it alike (readable.js)."""
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def duration(ms: int | str) -> str:
    """`12 ms`, or `1.2 s`; nothing for a card that is still blank."""
    if isinstance(ms, str):
        return ms
    if ms < 1_000:
        return f"{ms} ms"
    tenths = (ms + 50) // 100
    return f"{tenths // 10}.{tenths % 10} s"


@register.filter
def is_short(text: str) -> bool:
    """Whether a text may stand unfolded."""
    return len(text) <= SHORT_CHARACTERS and text.count("\n") < SHORT_LINES


@register.filter
def moment(unix_ms: int) -> datetime:
    """A wire timestamp as an aware datetime."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


@register.filter
def ago(unix_ms: int) -> str:
    """How long ago, in one unit; the browser says it in the same words (conversations.js)."""
    seconds = max(0, time() - unix_ms / 1000)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
