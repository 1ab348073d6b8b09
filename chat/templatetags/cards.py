"""What the card templates need beyond Django's own tags."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from time import time

from django import template
from django.utils.safestring import SafeString

from ..markdown import render

register = template.Library()


@register.filter
def markdown(source: str) -> SafeString:
    """A finished answer as HTML."""
    return render(source)


@register.filter
def readable_json(value: object) -> str:
    """A value of a kind without a card of its own, as a person can read it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


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
