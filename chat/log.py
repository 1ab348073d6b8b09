"""The live log of one conversation: numbered frames in a bounded window, and their fold.

A frame is in the log before anybody sees it. Readers hold a cursor and ask for what comes after;
the log proves the cursor or says why it cannot.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from .frames import Cursor, StreamFrame
from .timeline import Snapshot, Timeline

GapReason: TypeAlias = Literal["epoch", "window", "ahead", "diverged"]
NowMs: TypeAlias = Callable[[], int]


def wall_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A numbered frame as it goes out. `size` is the length of `text` in UTF-8 bytes.

    `event` names the type of the Event that it came of. It holds nothing that could lead back to
    it, so the collector need not look at the ten thousand that a log keeps.
    """

    seq: int
    at_ms: int
    text: str
    size: int
    stream_id: str | None = None
    event: str = ""


class Numbered(NamedTuple):
    """A frame the coordinator has numbered and encoded, on its way into the log."""

    frame: StreamFrame
    entry: Entry


class Gap(NamedTuple):
    """The frames after a cursor cannot be given: start again from a snapshot."""

    reason: GapReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How much of a log is kept: whichever bound is met first trims the oldest frames."""

    frames: int = 10_000
    bytes: int = 4 * 1024 * 1024
    seconds: float = 3600


class LogWriter(Protocol):
    """The log to its one writer."""

    @property
    def conv_id(self) -> str: ...

    @property
    def head(self) -> Cursor:
        """The last frame's place."""

    def stream_ids(self) -> Callable[[int], str | None]:
        """What the next batch's entries are called in the store, by their `seq`."""

    async def append(self, batch: Sequence[Numbered]) -> bool:
        """Adds the batch whole. Its first `seq` must be the head's + 1.

        True: what goes along with frames is written with it, and need not be committed.
        """

    async def commit(self) -> None:
        """Writes what goes along with frames, where that has changed and no frame says so."""


class FrameLog(Protocol):
    """The log to its readers. Append-only; `seq` is dense from 1; any number of readers."""

    @property
    def conv_id(self) -> str: ...

    @property
    def epoch(self) -> int: ...

    @property
    def head(self) -> Cursor:
        """The last frame's place."""

    async def refresh(self) -> None:
        """Brings up to date what a property says of a log that others may write."""

    async def level(self) -> Timeline:
        """The fold of the whole log."""

    @property
    def active_inference(self) -> str | None:
        """The inference that has started and not finished, as the log tells it."""

    @property
    def queue_depth(self) -> int:
        """How many prompts wait, as the log tells it."""

    @property
    def kept(self) -> tuple[int, int]:
        """Frames and bytes in the window."""

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        """At most `limit` frames after the cursor, contiguous; empty at the head."""

    def read_now(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap | None:
        """As `read`, where the answer is at hand; None where it has to be fetched."""

    async def window(self, *, since_seq: int = 0) -> Sequence[Entry]:
        """The frames that are kept of those after `since_seq`, oldest first."""

    async def snapshot(self, *, since_version: int = 0) -> Snapshot:
        """The fold at the head, reduced to what changed after `since_version`."""


class MemoryFrameLog:
    """A FrameLog of one process. No verb suspends, so each is atomic under one event loop."""

    def __init__(
        self, conv_id: str, *, epoch: int, window: Window | None = None, now_ms: NowMs = wall_ms
    ) -> None:
        self.conv_id = conv_id
        self.epoch = epoch
        self._window = window or Window()
        self._now_ms = now_ms
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._seq = 0
        self._timeline = Timeline()

    @property
    def head(self) -> Cursor:
        return Cursor(self.epoch, self._seq)

    @property
    def active_inference(self) -> str | None:
        return self._timeline.active_inference

    @property
    def queue_depth(self) -> int:
        return len(self._timeline.queue)

    @property
    def kept(self) -> tuple[int, int]:
        return len(self._entries), self._bytes

    def stream_ids(self) -> Callable[[int], str | None]:
        return _unnamed

    async def refresh(self) -> None:
        pass

    async def level(self) -> Timeline:
        return self._timeline

    async def append(self, batch: Sequence[Numbered]) -> bool:
        for frame, entry in batch:
            assert entry.seq == self._seq + 1, f"frame {entry.seq} appended after {self._seq}"
            self._timeline.fold(frame, seq=entry.seq, at_ms=entry.at_ms)
            self._seq = entry.seq
            self._entries.append(entry)
            self._bytes += entry.size
        self._trim()
        return True  # nothing goes along

    async def commit(self) -> None:
        pass

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        self._trim()
        return self._read(after, limit)

    def read_now(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap | None:
        return self._read(after, limit)

    def _read(self, after: Cursor, limit: int) -> Sequence[Entry] | Gap:
        if after.stream_id is not None:
            return Gap("diverged")
        if after.epoch != self.epoch:
            return Gap("epoch")
        if after.seq > self._seq:
            return Gap("ahead")
        behind = self._seq - after.seq
        if behind > len(self._entries):
            return Gap("window")
        if behind == 0:
            self._trim()  # as each tick asks, so that a log nobody writes to forgets too
            return ()
        if behind == 1:  # nearly always, where somebody follows
            return (self._entries[-1],)
        if behind <= limit:  # from the end: a deque is walked to its middle
            return tuple(islice(reversed(self._entries), behind))[::-1]
        start = len(self._entries) - behind
        return tuple(islice(self._entries, start, start + limit))

    async def window(self, *, since_seq: int = 0) -> Sequence[Entry]:
        self._trim()
        start = len(self._entries) - min(len(self._entries), max(0, self._seq - since_seq))
        return tuple(islice(self._entries, start, None))

    async def snapshot(self, *, since_version: int = 0) -> Snapshot:
        return self._timeline.snapshot(
            self.conv_id, self.head, since_version=since_version, now_ms=self._now_ms()
        )

    def _trim(self) -> None:
        entries, window = self._entries, self._window
        oldest = self._now_ms() - window.seconds * 1000
        while entries and (
            len(entries) > window.frames or self._bytes > window.bytes or entries[0].at_ms < oldest
        ):
            self._bytes -= entries.popleft().size


class Epochs:
    """Names the lives of logs: rising, also for an id whose earlier log was forgotten."""

    def __init__(self, *, now_ms: NowMs = wall_ms) -> None:
        self._now_ms = now_ms
        self._last = 0

    def next(self) -> int:
        self._last = max(self._now_ms(), self._last + 1)
        return self._last


def _unnamed(seq: int) -> None:
    """Nothing rolls back in memory: an epoch and a number prove a place."""
