"""The sockets of one conversation in this process, each with a bounded outbox.

A Connection is *live* while its outbox is fed by the follower, and *behind* when it must read the
log itself: at the start, and whenever its outbox was full. Being behind costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .bell import Bell
from .counts import StreamCounts
from .frames import Cursor
from .log import Entry
from .wire import Wire

logger = logging.getLogger(__name__)

CLOSE_RESTARTING = 1012
CLOSE_SLOW = 4008
CLOSE_RESYNC = 4010
CLOSE_RATE = 4013
CLOSE_SIGNED_OUT = 4501
CLOSE_NO_ACCESS = 4503
CLOSE_ENDED = 4509

FRAME_COST = 56
"""Bytes that Daphne holds for a frame on its way beside the frame's own; most frames are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How much a socket may hold before it is asked to catch up or to go. Bytes and seconds."""

    outbox_frames: int = 512
    outbox_bytes: int = 512 * 1024
    replies: int = 32
    unanswered_bytes: int = 1024 * 1024
    unanswered_bytes_silent: int = 16 * 1024 * 1024
    unanswered_seconds: float = 30
    send_seconds: float = 10
    ack_step_bytes: int = 16 * 1024


InPlace: TypeAlias = Callable[[Sequence[Entry], int, Wire], bool]
"""Puts a batch of so many bytes on its socket at once; False where it has to wait its turn."""


class Connection:
    """One socket's place in the log. `position` is the last `seq` it holds or was sent.

    The rule it keeps: whatever it hands out follows what it handed out before by exactly 1, or it
    is behind and reads the log again.
    """

    def __init__(self, *, flow: Flow | None = None) -> None:
        self.flow = flow or Flow()
        self.cursor: Cursor | None = None
        self.live = False
        self.closing: int | None = None
        self.leaving: int | None = None
        self.sending_since: float | None = None
        self.deadline: asyncio.Timeout | None = None
        self._outbox: list[Entry] = []
        self._outbox_bytes = 0
        self._in_place: InPlace | None = None
        self._replies: deque[str] = deque()
        self._wake = Bell()
        self._sent_bytes = 0
        self._acked_bytes = 0
        self._sent_seq = 0
        self._sent_at: deque[tuple[int, int]] = deque()
        self._has_ponged = False

    @property
    def has_replies(self) -> bool:
        return bool(self._replies)

    @property
    def depth(self) -> int:
        """Frames waiting in the outbox."""
        return len(self._outbox)

    def offer(
        self, entries: Sequence[Entry], wire: Wire | None = None, *, after: Cursor | None = None
    ) -> bool:
        """Takes a contiguous batch, or refuses it and is behind from then on. Never waits.

        `wire` is the batch as bytes: a socket that has nothing else to do is sent it in place.
        `after` is the place before the batch.
        """
        assert self.cursor is not None
        position = self.cursor.seq
        if self._was_rewritten(entries, after):
            self.live = False
            self._wake.set()
            return False
        if entries[0].seq <= position:
            wire = None
            entries = [entry for entry in entries if entry.seq > position]
            if not entries:
                return True
        size = entries[0].size if len(entries) == 1 else sum(entry.size for entry in entries)
        if (
            entries[0].seq != position + 1
            or len(self._outbox) + len(entries) > self.flow.outbox_frames
            or self._outbox_bytes + size > self.flow.outbox_bytes
        ):
            self.live = False
            self._wake.set()
            return False
        in_place = self._in_place
        if (
            in_place is not None
            and wire is not None
            and not self._outbox
            and in_place(entries, size, wire)
        ):
            self._move_to(entries[-1])
            return True
        self._outbox.extend(entries)
        self._outbox_bytes += size
        self._move_to(entries[-1])
        self._wake.set()
        return True

    def _was_rewritten(self, entries: Sequence[Entry], after: Cursor | None) -> bool:
        """Whether the batch has another frame where this socket is: its log went back meanwhile."""
        cursor = self.cursor
        assert cursor is not None
        at = cursor.seq - entries[0].seq
        if at == -1:
            return after is not None and cursor.seq > 0 and after.stream_id != cursor.stream_id
        return 0 <= at < len(entries) and entries[at].stream_id != cursor.stream_id

    def take(self) -> Sequence[Entry]:
        """All that waits in the outbox, in order."""
        taken, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        return taken

    def replay(self, entries: Sequence[Entry]) -> None:
        """Moves past frames that were read from the log to be sent now."""
        assert self.cursor is not None and not self._outbox
        assert entries[0].seq == self.cursor.seq + 1, "the log gave frames out of place"
        self._move_to(entries[-1])

    def reply(self, text: str) -> None:
        """Queues a message for this socket alone; too many unread ones close it with 4013."""
        if len(self._replies) >= self.flow.replies:
            self.close(CLOSE_RATE)
        else:
            self._replies.append(text)
        self._wake.set()

    def take_replies(self) -> Iterator[str]:
        while self._replies:
            yield self._replies.popleft()

    def close(self, code: int) -> None:
        """Asks for the socket to be closed; the first code counts."""
        if self.closing is None:
            self.closing = code
        self._wake.set()

    def give_up(self, code: int) -> None:
        """Asks for the socket to be closed now, whatever its pump waits for."""
        self.close(code)
        if self.deadline is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time())

    def leave(self, code: int) -> None:
        """Asks for the socket to be closed once it was sent all that is in the log.

        Where an inference runs, that is all up to its end.
        """
        self.leaving = code
        self._wake.set()

    def wake(self) -> None:
        """Has the pump look again at what there is to do."""
        self._wake.set()

    def sent(self, size: int, seq: int) -> None:
        """Counts bytes that go out with the frame (or snapshot) at `seq`."""
        self._sent_bytes += size
        self._sent_seq = seq
        last = self._sent_at[-1][1] if self._sent_at else self._acked_bytes
        if self._sent_bytes - last >= self.flow.ack_step_bytes:
            self._sent_at.append((seq, self._sent_bytes))

    def acknowledge(self, seq: int) -> None:
        """The client has read everything up to `seq`."""
        self._has_ponged = True
        if seq >= self._sent_seq:
            self._sent_at.clear()
            self._acked_bytes = self._sent_bytes
        while self._sent_at and self._sent_at[0][0] <= seq:
            self._acked_bytes = self._sent_at.popleft()[1]
        self._wake.set()

    @property
    def may_send(self) -> bool:
        """False while more is unanswered than the client may leave unanswered."""
        return self.credit > 0

    @property
    def credit(self) -> int:
        """Bytes that may still be sent before the client answers."""
        flow = self.flow
        limit = flow.unanswered_bytes if self._has_ponged else flow.unanswered_bytes_silent
        return limit - self._sent_bytes + self._acked_bytes

    async def rest(self, in_place: InPlace | None) -> None:
        """Returns when there may be work. What is offered meanwhile goes out `in_place`."""
        self._in_place = in_place
        try:
            await self._wake.wait()
        finally:
            self._in_place = None

    async def wait(self, timeout: float | None = None) -> bool:
        """Returns True when there may be work, False when `timeout` seconds passed without."""
        if timeout is None:
            await self._wake.wait()
        else:
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return False
        return True

    def look_after(self, now: float) -> None:
        """Wakes a pump that was not woken, and ends one whose message takes too long to go out."""
        if self.depth or self._replies or not self.live or self.closing or self.leaving:
            self._wake.set()
        stuck = self.sending_since is not None and (
            now - self.sending_since > self.flow.send_seconds
        )
        if stuck and self.deadline is not None:
            self.deadline.reschedule(now)

    def _move_to(self, entry: Entry) -> None:
        assert self.cursor is not None
        self.cursor = Cursor(self.cursor.epoch, entry.seq, entry.stream_id)


class ConnectionPool:
    """The connections of one conversation in this process."""

    def __init__(self, counts: StreamCounts | None = None) -> None:
        self._counts = counts or StreamCounts()
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._connections))

    def add(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def discard(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def emptied(self) -> None:
        """Returns once no connection is left."""
        await self._empty.wait()

    def offer(self, entries: Sequence[Entry], *, after: Cursor | None = None) -> None:
        """Gives a batch to every live connection. Never waits; a full outbox falls behind.

        `after` is the place before the batch: who is at another one with its number reads again.
        """
        wire = Wire(entries)
        for connection in self._connections:
            try:
                if connection.live and not connection.offer(entries, wire, after=after):
                    self._counts.drops["outbox_full"] += 1
            except Exception:
                # A bug at one socket must not cost the others the batch; it reads the log.
                logger.exception("a socket could not be offered frames")
                self._counts.drops["offer_failed"] += 1
                connection.live = False
                connection.wake()
