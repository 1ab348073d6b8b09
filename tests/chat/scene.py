"""A conversation whose writer and visitors go at once, each at its own pace, over a log far away.

Every call of the log and every message to a socket takes a turn of the loop on its way, so on a
`tests.schedule` loop anybody may go first anywhere. A scene fails where somebody is not shown a
contiguous prefix of the log, once and in order, a snapshot that is not the fold of its prefix, an
outbox above its bound, or the last frame later than a tick for each bell that was lost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias, cast

import pytest

from chat import streams
from chat.follower import Pace, StreamFollower
from chat.frames import Cursor
from chat.log import Entry, Gap, MemoryFrameLog, NowMs, Numbered, Window
from chat.pool import CLOSE_SLOW, Connection, Flow
from chat.streams import Streams
from sessions_app.inference.events import Event
from tests.chat.wire import ORIGIN, FarLog, Page, SocketClosed, Tab, Truth, finished
from tests.schedule import at_every_step, in_its_own_order

Step: TypeAlias = tuple[str, int]

TICK = 1.0
"""Seconds after which a follower looks up, here at all times."""
WINDOW = Window(frames=12)
FLOW = Flow(outbox_frames=5, outbox_bytes=4000, unanswered_seconds=3)


class RememberingLog(FarLog):
    """Keeps every frame, also those that its window has lost."""

    def __init__(self, conv_id: str, *, epoch: int, window: Window, now_ms: NowMs) -> None:
        super().__init__(conv_id, epoch=epoch, window=window, now_ms=now_ms)
        self.texts: list[str] = []

    async def append(self, batch: Sequence[Numbered]) -> bool:
        await self._travel()
        self.texts.extend(entry.text for _, entry in batch)
        return await super().append(batch)


class AtHandLog(RememberingLog):
    """Answers the follower at once, also while an earlier question of its is still on its way."""

    def read_now(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap | None:  # type: ignore[override]
        return MemoryFrameLog.read_now(self, after, limit=limit)


class FarTab(Tab):
    """A tab to which every message takes a moment, but for those that are put there in place."""

    async def _receive(self, text: str) -> None:
        await asyncio.sleep(0)
        await super()._receive(text)


class Bells:
    """Numbers the bells that are rung, and loses those that it is told to."""

    def __init__(self, lost: Collection[int] | None) -> None:
        self.rung = 0
        self._lost = lost

    def over(self, ring: Callable[[], None]) -> Callable[[], None]:
        def rung() -> None:
            self.rung += 1
            if self._lost is not None and self.rung not in self._lost:
                ring()

        return rung


class Scene:
    """One play. `writer` and each of `visitors` is a list of steps that somebody takes.

    `lost` are the numbers of the bells that nobody hears (None: all), when `ring` names which:
    the follower's, that the log may have grown, or a connection's, that there is something to send.
    Sockets that are `near` take frames in place; bursts go out in steps of `spacing` seconds.
    """

    def __init__(
        self,
        told: Sequence[Event],
        writer: Sequence[Step],
        visitors: Sequence[Sequence[Step]],
        *,
        window: Window = WINDOW,
        flow: Flow = FLOW,
        ring: str = "",
        lost: Collection[int] | None = frozenset(),
        log: type[RememberingLog] = RememberingLog,
        near: bool = False,
        spacing: float = 0,
    ) -> None:
        self.log_type, self.near, self.spacing = log, near, spacing
        self._told = iter(told)
        self._writer, self._visitors = writer, visitors
        self._window, self._flow = window, flow
        self._ring = ring
        self.bells = Bells(lost)
        self._late = TICK * max(1, len(lost or ()))
        self.tabs: list[FarTab] = []
        self.slow: set[FarTab] = set()
        """Who may be sent away: it did not read."""

    async def __call__(self) -> None:
        clock = asyncio.get_running_loop()
        self.streams = Streams(
            window=self._window,
            pace=Pace(tick_active=TICK, tick_idle=TICK, spacing=self.spacing),
            now_ms=lambda: round(clock.time() * 1000),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "MemoryFrameLog", self.log_type)
            self.log = cast("RememberingLog", self.streams.log("conv"))
        self._prepare()
        at_every_step(self._check_outboxes)
        truth = Truth()
        for _ in self._visitors:
            self.tabs.append(self._tab(truth))
        async with asyncio.TaskGroup() as everybody:
            everybody.create_task(self._write(), name="writer")
            for number, (tab, steps) in enumerate(zip(self.tabs, self._visitors, strict=True)):
                everybody.create_task(self._visit(tab, steps), name=f"visitor {number}")
        await self._end()
        in_its_own_order()
        for tab in self.tabs:
            await tab.drop()
        await self.streams.aclose()
        await self._tidy()

    def _prepare(self) -> None:
        """Called when the streams are there, before anybody comes."""

    async def _tidy(self) -> None:
        """Called when everybody has gone."""

    def _tab(self, truth: Truth) -> FarTab:
        return FarTab(self.streams, "conv", flow=self._flow, truth=truth, near=self.near)

    # Who does what

    async def _write(self) -> None:
        sink = self.streams.sink("conv")
        for what, number in self._writer:
            match what:
                case "publish":
                    for _, event in zip(range(number), self._told, strict=False):
                        sink.publish(event, ORIGIN)
                case "flush":
                    await sink.flush()
                case _:
                    await self._let_pass(what, number)
            await asyncio.sleep(0)

    async def _visit(self, tab: FarTab, steps: Sequence[Step]) -> None:
        for what, number in steps:
            if tab.was_closed:
                await self._sent_away(tab)
            match what:
                case "join" if not tab.online:
                    self._come(tab)
                case "join at" if not tab.online:
                    self._come(tab, f"{self.log.epoch}.{number}")
                case "drop" if tab.online:
                    await tab.drop()
                case "stall":
                    self.slow.add(tab)
                    tab.stall()
                case "release":
                    tab.release()
                case "pong" if tab.position is not None:
                    tab.pong()
                case _:
                    await self._does(tab, what, number)
            await asyncio.sleep(0)

    async def _does(self, tab: FarTab, what: str, number: int) -> None:
        await self._let_pass(what, number)

    async def _let_pass(self, what: str, number: int) -> None:
        if what == "turns":
            for _ in range(number):
                await asyncio.sleep(0)
        elif what == "seconds":
            await asyncio.sleep(number)

    def _come(self, tab: FarTab, cursor: str | None = None) -> None:
        if cursor is None:
            tab.rejoin()
        else:
            tab.join(cursor)
        assert tab.follower is not None
        self._lose(tab.connection, tab.follower)

    async def _sent_away(self, tab: FarTab) -> None:
        assert await tab.closed() == CLOSE_SLOW
        assert tab in self.slow, "a reader that kept up was closed"

    # What they are seen by

    def _lose(self, connection: Connection, follower: StreamFollower) -> None:
        match self._ring:
            case "connection":
                bell = connection._wake
                bell.set = self.bells.over(bell.set)  # type: ignore[method-assign]
            case "follower" if "wake" not in vars(follower):
                follower.wake = self.bells.over(follower.wake)  # type: ignore[method-assign]

    def _check_outboxes(self) -> None:
        for tab in self.tabs:
            assert tab.connection.depth <= self._flow.outbox_frames, "an outbox above its bound"

    async def _end(self) -> None:
        """The last frame is written; everybody reads it, and knows what went before."""
        for tab in self.tabs:
            tab.release()
            await self._is_there(tab)
        self.streams.sink("conv").publish(finished(99), ORIGIN)
        await self.streams.sink("conv").flush()
        async with asyncio.timeout(self._late + self.spacing + 0.001):
            for tab in self.tabs:
                await self._level(tab)
        self._check_pages()

    async def _is_there(self, tab: FarTab) -> None:
        if tab.was_closed:
            await self._sent_away(tab)
        if not tab.online:
            self._come(tab)

    async def _level(self, tab: FarTab) -> None:
        try:
            await tab.level()
        except SocketClosed:  # it was released a moment too late
            await self._sent_away(tab)
            self._come(tab)
            await tab.level()

    def _check_pages(self) -> None:
        """Each page and each snapshot on its way is the fold of all frames up to there."""
        snapshots = [
            event["data"]
            for tab in self.tabs
            for event in tab.seen
            if event["type"] == "timeline.snapshot"
        ]
        witness, texts = Page(), self.log.texts
        for version in range(len(texts) + 1):
            if version:
                witness.take(json.loads(texts[version - 1])["event"])
            for snapshot in snapshots:
                if snapshot["version"] == version:
                    witness.assert_shows(snapshot)
        for tab in self.tabs:
            assert tab.position == len(texts)
            if tab.page.version == tab.position:
                assert tab.page.entities == witness.entities
                assert tab.page.running == witness.running
            else:
                assert tab.snapshots == [], "a snapshot is a page"
