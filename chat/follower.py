"""The one reader of a conversation's log in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from sessions_app.inference.errors import Unavailable

from .counts import StreamCounts
from .frames import Cursor, connection_frame
from .log import Entry, FrameLog, Gap, NowMs, wall_ms
from .pool import Connection, ConnectionPool

LEAST_WAIT = 1e-5
"""Seconds for which no timer is worth its cost."""
RETRY_SECONDS = 1.0


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """When a follower looks up without being woken, and how soon after a look. Seconds.

    What is logged within `spacing` of the last offer goes out with what else comes in that time: no
    model speaks so fast, and in a burst a write to every socket for each frame is most of the cost.
    """

    tick_active: float = 1
    tick_idle: float = 15
    heartbeat: float = 25
    idle_timeout: float = 60
    spacing: float = 0.001


class StreamFollower:
    """Reads the log after its cursor and offers what it reads to the pool.

    Owns the pool and one task. A lost `wake()`, its own or a connection's, costs at most one tick.
    It stops when it had no socket for `idle_timeout`; the inference never notices. A log that is
    away for a while is asked again until it is back.
    """

    PAGE = 256

    def __init__(
        self,
        log: FrameLog,
        *,
        pace: Pace,
        on_stop: Callable[[StreamFollower], None],
        counts: StreamCounts | None = None,
        now_ms: NowMs = wall_ms,
    ) -> None:
        self.log = log
        self.counts = counts or StreamCounts()
        self.pool = ConnectionPool(self.counts)
        self.cursor = log.head
        self.pace = pace
        self._now_ms = now_ms
        self._on_stop = on_stop
        self._bell = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._next_beat = self._loop.time() + pace.heartbeat
        self._alone_since: float | None = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._offered_at = -pace.spacing
        self._next_look: asyncio.TimerHandle | None = None
        self._stopped = False
        self._armed_active = False
        self._task = asyncio.create_task(self._run(), name=f"follower:{log.conv_id}")

    def wake(self) -> None:
        """Says that the log may have grown. May be lost, doubled or late.

        What the log has at hand is offered before this returns, or at the end of the spacing; what
        it has not, the task fetches.
        """
        if self._next_look is not None:
            return
        wait = self._offered_at + self.pace.spacing - self._loop.time()
        if wait > LEAST_WAIT:
            self._next_look = self._loop.call_later(wait, self._look)
        else:
            self._look()

    def join(self, connection: Connection) -> None:
        """Makes the connection one of the pool; it reads the log itself until it is level."""
        self.pool.add(connection)
        self._alone_since = None

    def leave(self, connection: Connection) -> None:
        self.pool.discard(connection)
        if not len(self.pool):
            self._alone_since = self._loop.time()
            self._arm()

    def level(self, connection: Connection) -> bool:
        """Makes a connection live if it has read as far as this follower has offered.

        The caller awaits nothing between its empty read and this call, so no frame can fall in
        between: what comes later is offered, what came before was read.
        """
        here, place = self.cursor, connection.cursor
        assert place is not None
        if place.epoch != here.epoch or place.seq < here.seq:
            return False
        if place.seq == here.seq > 0 and place.stream_id != here.stream_id:
            return False  # one of the two is from before the log went back
        connection.live = True
        return True

    async def aclose(self) -> None:
        """Ends the task. The pool's connections stay, and are told nothing more."""
        self._stopped = True
        for timer in (self._timer, self._next_look):
            if timer is not None:
                timer.cancel()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        self._arm()
        started_again = False
        while not self._stopped:
            self._bell.clear()
            try:
                page = await self.log.read(self.cursor, limit=self.PAGE)
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if page:
                self._take(page)
            else:
                self._doubt_who_is_ahead()
            # A log that is being rewritten may refuse each new place; the tick looks again.
            if not page or (isinstance(page, Gap) and started_again):
                await self._bell.wait()
            started_again = isinstance(page, Gap)

    def _look(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if self._stopped or not self._offer_what_is_at_hand():
            self._bell.set()

    def _offer_what_is_at_hand(self) -> bool:
        """False where the log must be asked and waited for."""
        while (page := self.log.read_now(self.cursor, limit=self.PAGE)) is not None:
            if page:
                self._take(page)
            if len(page) < self.PAGE:
                return True
        return False

    def _take(self, page: Sequence[Entry] | Gap) -> None:
        if isinstance(page, Gap):
            self._start_again()
            return
        last, before = page[-1], self.cursor
        self.cursor = Cursor(before.epoch, last.seq, last.stream_id)
        self.pool.offer(page, after=before)
        self._offered_at = self._loop.time()
        self._keep_pace()

    def _doubt_who_is_ahead(self) -> None:
        """At the head nobody has more, unless it read later than this follower: it reads again.

        Else the log has gone back to where it was before.
        """
        for connection in self.pool:
            if connection.live and connection.cursor and connection.cursor.seq > self.cursor.seq:
                connection.live = False
                connection.wake()

    def _start_again(self) -> None:
        self.cursor = self.log.head
        for connection in self.pool:
            connection.live = False
            connection.wake()

    def _keep_pace(self) -> None:
        """Looks up sooner once an inference runs."""
        if bool(self.log.active_inference) is not self._armed_active:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._stopped:
            return
        pace = self.pace
        self._armed_active = self.log.active_inference is not None
        tick = pace.tick_active if self._armed_active else pace.tick_idle
        due = min(self._loop.time() + tick, self._next_beat)
        if self._alone_since is not None:
            due = min(due, self._alone_since + pace.idle_timeout)
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        # A loop calls a timer early by as much as its clock resolves; what is due then is due now.
        soon = now + LEAST_WAIT
        if self._alone_since is not None and soon >= self._alone_since + self.pace.idle_timeout:
            self._stopped = True
            self._on_stop(self)
            self._bell.set()
            return
        if soon >= self._next_beat:
            self._next_beat = now + self.pace.heartbeat
            for connection in self.pool:
                connection.reply(self._ping())
        for connection in self.pool:
            connection.look_after(now)
        self._look()
        self._arm()

    def _ping(self) -> str:
        data = {"headSeq": self.log.head.seq, "serverTime": self._now_ms()}
        return connection_frame("ws.ping", self.log.conv_id, data)
