"""A sink that remembers."""

from __future__ import annotations

from typing import Final

from ..inference.events import Event, Origin, TextDelta, ThinkingDelta
from .engine import Gate


class Flushed:
    """What a RecordingSink notes for a flush that has come through."""

    def __repr__(self) -> str:
        return "FLUSHED"


FLUSHED: Final = Flushed()


class RecordingSink:
    """An EventSink that keeps each event with its origin, and each flush, in order.

    With a `flush_gate` a flush takes until that opens.
    """

    def __init__(self, *, flush_gate: Gate | None = None) -> None:
        self.record: list[tuple[Event, Origin | None] | Flushed] = []
        self._flush_gate = flush_gate

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        self.record.append((event, origin))

    async def flush(self) -> None:
        if self._flush_gate is not None:
            await self._flush_gate.passed()
        self.record.append(FLUSHED)

    @property
    def events(self) -> list[Event]:
        return [entry[0] for entry in self.record if not isinstance(entry, Flushed)]

    @property
    def text(self) -> str:
        """All text of the answers."""
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def thinking(self) -> str:
        """All reasoning of the answers."""
        return "".join(event.text for event in self.events if isinstance(event, ThinkingDelta))
