"""Text a tool causes, as the model and the people may read it: rendered, masked, bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from .hiding import hidden as everywhere_hidden
from .tools import MASK, Arguments, Tool


def as_text(value: object) -> str:
    """A tool's return value as the model reads it: text as it is, the rest as JSON where it can."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes of binary data]"
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except Exception:  # noqa: BLE001 - any value, a cyclic one too
        return _repr(value)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a __repr__ that raises
        return f"[an unprintable {type(value).__name__}]"


LEAST_HIDDEN = 4
"""Characters of a hidden value that is masked in texts: a shorter one is part of too many words."""


def without_secrets(
    text: str, tool: Tool, arguments: Arguments, *, hidden: Iterable[str] = ()
) -> str:
    """`text` with every value of the tool's secret arguments masked, however it was quoted.

    So are those of `hidden` arguments that are long enough to be told from other words, and what
    is hidden in the whole inference.
    """
    secrets = [secret for name in tool.secrets for secret in _leaves(arguments.get(name))]
    for name in hidden:
        secrets += (s for s in _leaves(arguments.get(name)) if len(s) >= LEAST_HIDDEN)
    return masked(text, (*secrets, *everywhere_hidden()))


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of the secrets masked, however it was quoted."""
    forms: set[str] = set()
    for secret in secrets:
        forms |= {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}
        forms.add(json.dumps(secret, ensure_ascii=False)[1:-1])
    # The longest first: a secret may be part of another.
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _leaves(value: object) -> Iterator[str]:
    """The texts and numbers in a JSON value."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif value and not isinstance(value, bool):
        yield str(value)


def bounded(text: str, max_bytes: int) -> str:
    """`text` as UTF-8 can say it, cut at `max_bytes` with a note that says so."""
    whole = text.encode(errors="replace")
    if len(whole) <= max_bytes:
        return whole.decode()
    shown = whole[:max_bytes].decode(errors="ignore")
    return f"{shown}\n[cut: {len(whole)} bytes in all, the first {max_bytes} are shown]"
