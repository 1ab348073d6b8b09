"""What one socket is sent, from `ws.hello` to its last frame. Knows nothing of Channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

import msgspec

from sessions_app.inference.errors import Unavailable

from .follower import StreamFollower
from .frames import PROTOCOL_VERSION, Cursor, connection_frame, utf8_size
from .log import Entry, Gap, NowMs, wall_ms
from .pool import CLOSE_SLOW, FRAME_COST, Connection
from .timeline import SnapshotReason
from .wire import Wire, Write, message

logger = logging.getLogger(__name__)

Send: TypeAlias = Callable[[str], Awaitable[None]]

T = TypeVar("T")

RETRY_SECONDS = 1.0
"""Between two questions to a log that is away."""

WRITE_BYTES = 64 * 1024
"""Of frames that go out in one write: what a socket's buffer takes at a time."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first frame of a connection. `head_seq` and `cursor` are the log's, information only."""

    conv_id: str
    session_id: str
    runtime_key: str
    server_time: int
    protocol: int
    epoch: int
    head_seq: int
    cursor: str
    resumed: bool
    missed: int
    running: bool
    inference_id: str | None
    queue_depth: int
    heartbeat_ms: int


async def pump(
    connection: Connection,
    follower: StreamFollower,
    send: Send,
    *,
    cursor: Cursor | None,
    profile: str,
    write: Write | None = None,
    now_ms: NowMs = wall_ms,
) -> int:
    """Sends until the connection is to be closed, and returns the close code.

    The one sender of its socket, so frames cannot overtake each other. Cancelling it is safe: the
    client then has a prefix and resumes by its cursor. What `write` takes needs no `send`: while
    there is nothing to do but wait, frames go out by it in the step that offers them.
    """
    socket = _Socket(connection, follower, send, write, now_ms)
    try:
        async with asyncio.timeout(None) as deadline:
            connection.deadline = deadline
            if connection.closing is None:
                await socket.greet(cursor, profile)
            while connection.closing is None:
                if connection.has_replies:
                    await socket.send_replies()
                if connection.depth:
                    await socket.send_entries(connection.take())
                elif connection.live:
                    if connection.leaving is not None and socket.has_it_all():
                        connection.close(connection.leaving)
                    else:
                        await connection.rest(socket.in_place)
                else:
                    await socket.catch_up()
            await socket.send_replies()
    except TimeoutError:
        connection.close(CLOSE_SLOW)
    finally:
        connection.deadline = None
        follower.counts.closed(connection.closing)
    assert connection.closing is not None
    return connection.closing


class _Socket:
    def __init__(
        self,
        connection: Connection,
        follower: StreamFollower,
        send: Send,
        write: Write | None,
        now_ms: NowMs,
    ) -> None:
        self._connection = connection
        self._follower = follower
        self._log = follower.log
        self._send = send
        self._write = write
        self.in_place = None if write is None else self._put_in_place
        self._now_ms = now_ms
        self._clock = asyncio.get_running_loop()
        self._greeted = False

    async def greet(self, cursor: Cursor | None, profile: str) -> None:
        """Hello, and a snapshot unless the cursor was proved."""
        log = self._log
        page = None
        if cursor is not None:
            page = await self._patiently(lambda: log.read(cursor, limit=1))
            if page is None:
                return
        else:
            # Nothing was read yet of a log that lies elsewhere: its head is not known.
            await self._patiently(log.refresh)
            if self._connection.closing is not None:
                return
        resumed = page is not None and not isinstance(page, Gap)
        if page is not None:
            result = page.reason if isinstance(page, Gap) else "resumed"
            self._follower.counts.resumes[result] += 1
        head = log.head
        hello = Hello(
            conv_id=log.conv_id,
            session_id=log.conv_id,
            runtime_key=profile,
            server_time=self._now_ms(),
            protocol=PROTOCOL_VERSION,
            epoch=log.epoch,
            head_seq=head.seq,
            cursor=str(head),
            resumed=resumed,
            missed=head.seq - cursor.seq if resumed and cursor is not None else 0,
            running=log.active_inference is not None,
            inference_id=log.active_inference,
            queue_depth=log.queue_depth,
            heartbeat_ms=int(self._follower.pace.heartbeat * 1000),
        )
        await self.send(connection_frame("ws.hello", log.conv_id, hello))
        self._greeted = True
        if resumed:
            self._connection.cursor = cursor
        else:
            await self.snapshot(page.reason if isinstance(page, Gap) else "first")

    def has_it_all(self) -> bool:
        """Whether the client was sent all there is, the end of a running inference too."""
        cursor = self._connection.cursor
        return (
            cursor is not None
            and cursor.seq >= self._log.head.seq
            and self._log.active_inference is None
        )

    async def catch_up(self) -> None:
        """Sends the next page of the log, or goes live at its end."""
        connection = self._connection
        cursor = connection.cursor
        assert cursor is not None
        page = await self._patiently(lambda: self._log.read(cursor, limit=self._follower.PAGE))
        if page is None:
            return
        if isinstance(page, Gap):
            if connection.may_send:
                await self.snapshot("slow" if page.reason == "window" else page.reason)
            else:  # it may be large, and what was sent before is still to be read
                await self.wait_for_pong()
        elif page:
            connection.replay(page)
            await self.send_entries(page)
            await asyncio.sleep(0)  # a client that takes all at once is not the only one
        elif not self._follower.level(connection):
            # The follower has been shown more of the log than this read was: read again.
            self._follower.wake()
            await asyncio.sleep(0)

    async def snapshot(self, reason: SnapshotReason) -> None:
        """One frame that stands for all frames up to its version."""
        found = await self._patiently(self._log.snapshot)
        if found is None:
            return
        snapshot = msgspec.structs.replace(found, reason=reason)
        text = connection_frame("timeline.snapshot", self._log.conv_id, snapshot)
        self._connection.cursor = Cursor.parse(snapshot.cursor)
        self._connection.sent(utf8_size(text), snapshot.version)
        self._follower.counts.snapshots[reason] += 1
        await self.send(text)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The log's answer, however long it is away; None once the socket is to be closed."""
        while self._connection.closing is None:
            try:
                return await ask()
            except Unavailable:
                if self._greeted:
                    await self.send_replies()
                await asyncio.sleep(RETRY_SECONDS)
        return None

    def _put_in_place(self, entries: Sequence[Entry], size: int, wire: Wire) -> bool:
        """Puts a batch on the wire now, if the client keeps up and nobody is asked to go."""
        connection, write = self._connection, self._write
        if (
            write is None
            or connection.closing is not None
            or connection.leaving is not None
            or size > connection.credit
        ):
            return False
        try:
            if not write(wire.bytes()):
                return False
        except (OSError, RuntimeError):  # what transports raise; the pump is told the same
            logger.debug("a socket took no frames in place", exc_info=True)
            return False
        for entry in entries:
            connection.sent(entry.size + FRAME_COST, entry.seq)
        self._follower.counts.frames_sent += len(entries)
        return True

    def _write_some(self, entries: Sequence[Entry], begin: int) -> int:
        """Puts as many frames on the wire as go out in one write; says how many."""
        connection, write = self._connection, self._write
        if write is None:
            return 0
        some: list[bytes] = []
        room = min(WRITE_BYTES, connection.credit)
        for entry in islice(entries, begin, None):
            room -= entry.size
            if room < 0 and some:
                break
            some.append(message(entry.text))
        if not write(b"".join(some)):
            return 0
        for entry in islice(entries, begin, begin + len(some)):
            connection.sent(entry.size + FRAME_COST, entry.seq)
        return len(some)

    async def send_entries(self, entries: Sequence[Entry]) -> None:
        """Sends frames in order, as far as the client keeps up and is not asked to go."""
        connection = self._connection
        self._follower.counts.frames_sent += len(entries)
        place = 0
        try:
            while place < len(entries):
                if not connection.may_send:
                    await self.wait_for_pong()
                if connection.closing is not None:
                    return
                if written := self._write_some(entries, place):
                    place += written
                    continue
                entry = entries[place]
                place += 1
                connection.sent(entry.size + FRAME_COST, entry.seq)
                connection.sending_since = self._clock.time()
                await self._send(entry.text)
                connection.sending_since = None
        finally:
            connection.sending_since = None

    async def send_replies(self) -> None:
        for reply in self._connection.take_replies():
            await self.send(reply)

    async def send(self, text: str) -> None:
        self._connection.sending_since = self._clock.time()
        try:
            await self._send(text)
        finally:
            self._connection.sending_since = None

    async def wait_for_pong(self) -> None:
        """Returns when enough was answered, or after closing a client that leaves it unanswered."""
        connection = self._connection
        deadline = self._clock.time() + connection.flow.unanswered_seconds
        while not connection.may_send and connection.closing is None:
            await self.send_replies()
            if not await connection.wait(deadline - self._clock.time()):
                connection.close(CLOSE_SLOW)
