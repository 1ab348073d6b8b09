"""Stream frames as the bytes of a websocket, made once however many sockets they go to.

A server of ours offers to put such bytes on a socket in place: without a task that wakes, a dict
and an await for each frame. It tells so in `scope["extensions"]`; any other server is sent to as
ASGI says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, TypeAlias

from .log import Entry

EXTENSION = "webchat.write"

Write: TypeAlias = Callable[[bytes], bool]
"""Puts whole messages on the wire now. False: it takes none now, `send` them. Never waits."""

_TEXT = 0x81  # final, unmasked, as RFC 6455 has it from a server
_SHORT, _LONG, _HUGE = Struct("!BB").pack, Struct("!BBH").pack, Struct("!BBQ").pack


def message(text: str) -> bytes:
    """A text as one whole websocket message of a server."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return _SHORT(_TEXT, size) + payload
    if size < 65536:
        return _LONG(_TEXT, 126, size) + payload
    return _HUGE(_TEXT, 127, size) + payload


class Wire:
    """A batch of frames as bytes, made when the first socket asks."""

    __slots__ = ("_bytes", "_entries")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._bytes: bytes | None = None

    def bytes(self) -> bytes:
        made = self._bytes
        if made is None:
            entries = self._entries
            if len(entries) == 1:
                made = message(entries[0].text)
            else:
                made = b"".join([message(entry.text) for entry in entries])
            self._bytes = made
        return made


def writing(scope: Mapping[str, Any]) -> Write | None:
    """What the server of this socket offers; None where it is not one of ours."""
    offered = (scope.get("extensions") or {}).get(EXTENSION)
    return None if offered is None else offered["write"]
