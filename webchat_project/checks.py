"""System checks: what the environment says of the log, and Django's own about deployment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import wraps
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks.registry import registry

from .inline import STANDS_FOR
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


def teach_django_our_middlewares() -> None:
    """Django's checks about deployment look for its middlewares by name, and find ours. Idempotent.

    Each would be silent about what a middleware does that it does not find.
    """
    for check in tuple(registry.deployment_checks):
        if check.__module__.startswith("django.") and not hasattr(check, "__wrapped__"):
            registry.deployment_checks.remove(check)
            registry.deployment_checks.add(_with_names_of_django(check))


def _with_names_of_django(check: Any) -> Any:
    @wraps(check)
    def checked(*args: Any, **kwargs: Any) -> Any:
        from django.test import override_settings  # of no use to a server

        named = [STANDS_FOR.get(name, name) for name in settings.MIDDLEWARE]
        with override_settings(MIDDLEWARE=named):
            return check(*args, **kwargs)

    return checked
