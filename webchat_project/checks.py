"""System checks of what the environment says of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from .logs import LOG_FORMS, LOG_LEVELS


@register
def check_log_settings(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """LOG_FORMAT and LOG_LEVEL are words that mean something."""
    return [
        *_unknown("LOG_FORMAT", LOG_FORMS, id="webchat_project.E001"),
        *_unknown("LOG_LEVEL", LOG_LEVELS, id="webchat_project.E002"),
    ]


def _unknown(name: str, known: Sequence[str], *, id: str) -> Iterator[CheckMessage]:
    given = getattr(settings, name, known[0])
    if given not in known:
        yield Error(f"{name} is {given!r}.", hint=f"Expected one of: {', '.join(known)}.", id=id)
