"""What the card templates need beyond Django's own tags."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time

from django import template
from django.template.loader import render_to_string
from django.utils.html import escape
from django.utils.safestring import SafeString

from ..cards import Card
from ..markdown import render

logger = logging.getLogger(__name__)

SHORT_CHARACTERS = 400
SHORT_LINES = 8
LONG_CHARACTERS = 1_200
LONG_LINES = 16
LINE_CHARACTERS = 120

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


@register.simple_tag(takes_context=True)
def written(context: template.Context, *names: str) -> str:
    """What a person had written in the field `<name>:<name>…` when their form was refused."""
    fields: Mapping[str, str] = context.get("written") or {}
    return fields.get(":".join(names), "")


@register.filter
def markdown(source: str) -> SafeString:
    """A finished answer as HTML."""
    return render(source)


@register.filter
def source(text: str) -> SafeString:
    """Text that a browser's parser gives back character for character, so that it can grow on.

    A bare carriage return would come out as a line feed and a NUL not at all; Markdown reads a NUL
    as U+FFFD, so that is written instead.
    """
    return SafeString(escape(text).replace("\r", "&#13;").replace("\0", "\ufffd"))


@register.filter
def readable_json(value: object) -> str:
    """A value as JSON, a string as it is; the browser writes it alike (readable.js)."""
    return value if isinstance(value, str) else _json(value, indent=2)


@register.filter
def one_line(value: object) -> str:
    """The beginning of a value as JSON on one line, a string as it is."""
    text = value if isinstance(value, str) else _json(value, indent=None)
    line = re.sub(r"[ \t\r\n]+", " ", text).strip(" ")
    return line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"


@register.filter
def tokens(usage: Mapping[str, int] | str | None) -> str:
    """What the model read and wrote; nothing where nobody counted."""
    if not isinstance(usage, Mapping):
        return ""
    return f"{usage['inputTokens']:,} tokens in, {usage['outputTokens']:,} out"


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
def is_long(text: str) -> bool:
    """Whether what a person said is folded at first, where scripts can unfold it."""
    return len(text) > LONG_CHARACTERS or text.count("\n") >= LONG_LINES


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


def _json(value: object, *, indent: int | None) -> str:
    separators = (", ", ": ") if indent is None else (",", ": ")
    return json.dumps(
        _as_scripts_have_it(value),
        indent=indent,
        separators=separators,
        ensure_ascii=False,
        default=str,
    )


def _as_scripts_have_it(value: object) -> object:
    """A script knows one kind of number: 3.0 is 3 to it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _as_scripts_have_it(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_as_scripts_have_it(held) for held in value]
    return value
