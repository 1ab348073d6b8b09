"""The secrets in settings: what is masked wherever it turns up, in logs and in what tools say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

SECRET_MIN_CHARS = 10
"""A shorter value is as likely a word: masking it would spoil texts and hide little."""

_NAME = re.compile(r"key$|token|secret|password|authorization", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")


def secrets_in(settings: Any) -> frozenset[str]:
    """Every text under a name that speaks of a secret, and the password of every URL."""
    return frozenset(text for text in _found(settings) if len(text) >= SECRET_MIN_CHARS)


def _found(settings: Any) -> Iterator[str]:
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from _texts(value) if _NAME.search(str(name)) else _found(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _found(value)
    elif isinstance(settings, str) and (password := _URL_PASSWORD.search(settings)):
        yield unquote(password[1])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        # `Bearer <token>`: the token alone is as secret.
        yield from value.split(" ")[1:]
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
