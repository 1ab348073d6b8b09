"""From an event to every tab: log, follower, pool and pump together.

The promise: what a tab has seen is a prefix of the log, each frame once and in order, or a snapshot
that stands for what is missing, whatever lies between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import chain, count, cycle, islice
from typing import cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.coordinator import StreamCoordinator
from chat.follower import Pace
from chat.frames import Cursor, connection_frame
from chat.log import Entry, Gap, MemoryFrameLog, Window
from chat.pool import CLOSE_RATE, CLOSE_SLOW, Flow
from chat.streams import Streams
from sessions_app.inference.events import Event, Log, ModelCallStarted, TextDelta
from sessions_app.testing import Gate
from tests.chat.wire import (
    ORIGIN,
    FarLog,
    Json,
    SocketClosed,
    Tab,
    Truth,
    conversations,
    finished,
    inference,
)

pytestmark = pytest.mark.virtual

MIB = 1024 * 1024
KIB_16 = Log(message="😀" * 4096)


def seconds() -> float:
    return asyncio.get_running_loop().time()


@pytest_asyncio.fixture
async def new() -> AsyncIterator[Callable[..., Streams]]:
    made: list[Streams] = []

    def make(**options: object) -> Streams:
        options = {"pace": Pace(spacing=0), **options}
        made.append(Streams(now_ms=lambda: int(seconds() * 1000), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for streams in made:
        await streams.aclose()


def publish(streams: Streams, *told: Event) -> StreamCoordinator:
    sink = streams.sink("conv")
    for event in told:
        sink.publish(event, ORIGIN)
    return sink


def lines(number: int) -> list[Event]:
    """That many frames: a log line is never merged with another."""
    return [Log(message=f"line {n}") for n in range(number)]


async def snapshot_of(streams: Streams) -> Json:
    text = connection_frame("timeline.snapshot", "conv", await streams.snapshot("conv"))
    data: Json = json.loads(text)["event"]["data"]
    return data


# Any order

Step = tuple[str, int]

steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 4)),
    st.tuples(st.just("publish"), st.integers(1, 30)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("seconds"), st.integers(1, 15)),
    st.tuples(st.just("join"), st.just(0)),
    st.tuples(st.just("join at"), st.integers(0, 40)),
    st.tuples(st.sampled_from(["drop", "rejoin", "stall", "release", "pong"]), st.integers(0, 5)),
)


class Room:
    """One conversation, and tabs that do as they are told, one step after the other."""

    def __init__(self, story: list[Event]) -> None:
        self.streams = Streams(window=Window(frames=12), now_ms=lambda: int(seconds() * 1000))
        self.flow = Flow(outbox_frames=5, outbox_bytes=4000, unanswered_seconds=3)
        self.truth = Truth()
        self.tabs: list[Tab] = []
        self.stalled: set[Tab] = set()
        self.story: Iterator[Event] = chain(story, (Log(message=f"line {n}") for n in count()))

    async def do(self, step: Step) -> None:
        what, number = step
        match what:
            case "publish":
                publish(self.streams, *islice(self.story, number))
            case "flush":
                await self.streams.sink("conv").flush()
            case "turns":
                for _ in range(number):
                    await asyncio.sleep(0)
            case "seconds":
                await asyncio.sleep(number)
            case "join":
                self.new_tab().join()
            case "join at":
                self.new_tab().join(f"{self.streams.log('conv').epoch}.{number}")
            case _ if self.tabs:
                await self.tell(what, self.tabs[number % len(self.tabs)])
        await self.see_who_was_closed()

    def new_tab(self) -> Tab:
        near = len(self.tabs) % 2 == 0
        self.tabs.append(Tab(self.streams, "conv", flow=self.flow, truth=self.truth, near=near))
        return self.tabs[-1]

    async def tell(self, what: str, tab: Tab) -> None:
        match what:
            case "drop" if tab.online:
                await tab.drop()
            case "rejoin" if not tab.online:
                tab.rejoin()
            case "stall":
                tab.stall()
                self.stalled.add(tab)
            case "release":
                tab.release()
            case "pong" if tab.position is not None:
                tab.pong()

    async def see_who_was_closed(self) -> None:
        for tab in self.tabs:
            if tab.was_closed:
                assert await tab.closed() == CLOSE_SLOW
                assert tab in self.stalled, "a reader that kept up was closed"

    async def end(self, turns: int) -> None:
        """Everybody reads again; some turns later comes the last frame, and all have it."""
        for tab in self.tabs:
            tab.release()
        await self.see_who_was_closed()
        for tab in self.tabs:
            if not tab.online:
                tab.rejoin()
        for _ in range(turns):
            await asyncio.sleep(0)
        publish(self.streams, finished(99))
        await self.streams.sink("conv").flush()
        head = await snapshot_of(self.streams)
        for tab in self.tabs:
            async with asyncio.timeout(3600):
                await self.level(tab)
            assert tab.position == head["version"]
            if tab.page.version == tab.position:
                tab.page.assert_shows(head)
            else:
                assert tab.snapshots == [], "a snapshot is a page"
        await self.check_the_log()
        for tab in self.tabs:
            await tab.drop()
        await self.streams.aclose()

    async def level(self, tab: Tab) -> None:
        while True:
            if not tab.online:
                tab.rejoin()
            try:
                return await tab.level()
            except SocketClosed:  # it, or another, was released a moment too late
                await self.see_who_was_closed()

    async def check_the_log(self) -> None:
        log = self.streams.log("conv")
        kept = await log.read(Cursor(log.epoch, max(0, log.head.seq - 12)), limit=100)
        assert not isinstance(kept, Gap)
        for entry in kept:
            self.truth.check(entry.seq, entry.text)


@settings(max_examples=120, deadline=None)
@given(conversations, st.lists(steps, max_size=40), st.integers(0, 8))
async def test_in_any_order_of_coming_going_and_stalling_every_tab_sees_each_frame_once_in_order(
    story: list[Event], told: list[Step], turns: int
):
    await live_through(story, told, turns)


@settings(max_examples=120, deadline=None)
@given(
    conversations,
    st.lists(steps, max_size=40),
    st.integers(0, 25),
    st.lists(st.integers(0, 6), min_size=1),
)
async def test_the_same_holds_over_a_log_that_is_far_away(
    story: list[Event], told: list[Step], turns: int, lags: list[int]
):
    class Far(FarLog):
        pass

    Far.lags = cycle(lags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat.streams.MemoryFrameLog", Far)
        await live_through(story, told, turns)


async def live_through(story: list[Event], told: list[Step], turns: int) -> None:
    room = Room(story)
    room.new_tab().join()
    for step in told:
        await room.do(step)
    await room.end(turns)


class HeldLog(MemoryFrameLog):
    """A log whose next answer "nothing new" is on its way until `held` opens."""

    held: Gate | None = None

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        page = await super().read(after, limit=limit)
        if self.held is not None and not isinstance(page, Gap) and not page:
            held, self.held = self.held, None
            await held.passed()
        return page


async def test_a_frame_that_comes_while_a_tab_is_told_of_nothing_new_reaches_it_all_the_same(
    new, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chat.streams.MemoryFrameLog", HeldLog)
    streams = new()
    log = cast("HeldLog", streams.log("conv"))
    witness, tab = Tab(streams, "conv"), Tab(streams, "conv")
    witness.join()
    await publish(streams, *lines(3)).flush()
    await witness.level()
    tab.stall()
    tab.join(str(log.head))
    await asyncio.sleep(1)  # it is being sent its hello
    held = log.held = Gate("nothing new")
    tab.release()
    await held.reached()
    await publish(streams, *lines(1)).flush()
    await witness.level()
    held.open()
    async with asyncio.timeout(60):
        await tab.level()
    assert tab.snapshots == []
    for one in (witness, tab):
        await one.drop()


# A slow reader


async def test_a_tab_whose_outbox_was_full_reads_the_log_and_misses_nothing(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    await tab.level()
    tab.stall()
    for _ in range(20):
        await publish(streams, *lines(100)).flush()
    assert tab.connection.depth <= 512
    assert tab.is_behind()
    tab.release()
    await tab.level()
    assert tab.position == 2000
    assert tab.snapshots == ["first"]
    tab.page.assert_shows(await snapshot_of(streams))
    await publish(streams, *lines(1)).flush()
    await tab.level()
    assert not tab.is_behind()
    await tab.drop()


async def test_a_tab_that_the_window_has_passed_starts_again_from_a_snapshot(new):
    streams = new(window=Window(frames=100))
    tab = Tab(streams, "conv", flow=Flow(outbox_frames=10))
    tab.join()
    await tab.level()
    tab.stall()
    await publish(streams, *lines(5)).flush()
    await asyncio.sleep(1)
    for _ in range(10):
        await publish(streams, *lines(50)).flush()
    tab.release()
    await tab.level()
    assert tab.snapshots == ["first", "slow"]
    tab.page.assert_shows(await snapshot_of(streams))
    await tab.drop()


async def test_a_tab_that_does_not_read_costs_writer_and_readers_no_time(new):
    streams = new()
    slow, fast = Tab(streams, "conv"), Tab(streams, "conv")
    for tab in (slow, fast):
        tab.join()
        await tab.level()
    slow.stall()
    before = seconds()
    for _ in range(20):
        await publish(streams, *lines(100)).flush()
        await fast.level()
    assert seconds() == before
    assert fast.snapshots == ["first"]
    slow.release()
    await slow.level()
    for tab in (slow, fast):
        await tab.drop()


async def test_a_batch_larger_than_the_window_is_a_snapshot_for_everybody(new):
    streams = new(window=Window(frames=10))
    tabs = [Tab(streams, "conv") for _ in range(3)]
    for tab in tabs:
        tab.join()
        await tab.level()
    await publish(streams, *lines(11)).flush()
    for tab in tabs:
        await tab.level()
        assert tab.snapshots == ["first", "slow"]
        tab.page.assert_shows(await snapshot_of(streams))
        await tab.drop()


# A cursor


async def test_a_cursor_at_every_place_of_a_conversation_gets_exactly_what_came_after_it(new):
    streams = new()
    epoch = streams.log("conv").epoch
    for n in range(5):
        await publish(streams, *inference(n, "Hel", "lo", thinking="hm")).flush()
    head, truth = streams.head_seq("conv"), Truth()
    for seq in range(head + 1):
        tab = Tab(streams, "conv", truth=truth)
        tab.join(f"{epoch}.{seq}")
        await tab.level()
        hello, *rest = tab.seen
        assert (hello["data"]["resumed"], hello["data"]["missed"]) == (True, head - seq)
        assert [event["seq"] for event in rest] == list(range(seq + 1, head + 1))
        await tab.drop()


async def test_a_tab_that_reconnects_while_text_streams_sees_every_frame_once_in_order(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    publish(streams, *inference(1)[:-2])
    for n in range(200):
        publish(streams, TextDelta(f"{n} "))
        await asyncio.sleep(0)
        if n % 7 == 0:
            await tab.drop()
            await asyncio.sleep(0)
            tab.rejoin()
    await publish(streams, finished(1)).flush()
    await tab.level()
    assert tab.page.entities["m1"]["props"]["content"] == "".join(f"{n} " for n in range(200))
    await tab.drop()


async def test_every_reason_for_a_gap_is_told_at_any_moment_of_a_conversation(new):
    streams = new(window=Window(frames=20))
    epoch = streams.log("conv").epoch
    told = {
        "epoch": f"{epoch - 1}.5",
        "window": f"{epoch}.5",
        "ahead": f"{epoch}.5000",
        "diverged": f"{epoch}.45.0-0",
    }
    publish(streams, *inference(1)[:-2], *lines(50))
    await streams.sink("conv").flush()
    for reason, cursor in told.items():
        tab = Tab(streams, "conv")
        tab.join(cursor)
        await publish(streams, *lines(1)).flush()
        await tab.level()
        assert tab.snapshots == [reason]
        tab.page.assert_shows(await snapshot_of(streams))
        await tab.drop()


# Flow control


async def fill(streams: Streams, tab: Tab) -> float:
    """Publishes until the tab is sent no more, and returns when that was."""
    while True:
        await publish(streams, *[KIB_16] * 8).flush()
        at = seconds()
        try:
            async with asyncio.timeout(3):
                await tab.level()
        except TimeoutError:
            return at


async def test_a_client_that_never_answers_gets_16_mebibytes_and_then_30_seconds(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    stopped = await fill(streams, tab)
    assert 15.9 * MIB <= tab.bytes < 16 * MIB + 32 * 1024  # what each frame costs counts too
    assert await tab.closed() == CLOSE_SLOW
    assert seconds() - stopped == 30


async def test_a_client_that_has_answered_once_may_leave_one_mebibyte_unanswered(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    await tab.saw("timeline.snapshot")
    tab.pong()
    before = tab.bytes
    await fill(streams, tab)
    assert 0.99 * MIB <= tab.bytes - before < 1 * MIB + 32 * 1024
    tab.pong()
    await tab.level()
    tab.pong()
    before = tab.bytes
    stopped = await fill(streams, tab)
    assert 0.99 * MIB <= tab.bytes - before < 1 * MIB + 32 * 1024
    assert await tab.closed() == CLOSE_SLOW
    assert seconds() - stopped == 30
    tab.rejoin()
    await tab.level()
    await tab.drop()


async def test_a_client_that_answers_in_time_is_sent_everything_without_a_pause(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    before, answered = seconds(), 0
    for _ in range(100):
        await publish(streams, *[KIB_16] * 4).flush()
        await tab.level()
        assert tab.bytes > answered
        answered = tab.bytes
        tab.pong()
    assert seconds() == before
    assert tab.snapshots == ["first"]
    await tab.drop()


async def test_a_client_whose_answers_have_stopped_still_gets_its_own_replies(new):
    streams = new()
    tab = Tab(streams, "conv", flow=Flow(unanswered_bytes_silent=1000))
    tab.join()
    await tab.saw("timeline.snapshot")
    await publish(streams, *lines(100)).flush()
    await asyncio.sleep(26)
    assert len(await tab.saw("ws.ping")) == 1
    assert tab.position != 100
    tab.pong()
    await asyncio.sleep(1)
    await tab.drop()


async def test_who_fell_out_of_the_window_is_sent_its_snapshot_once_it_has_answered(new):
    """A snapshot is one message, however large: it is not put on top of what waits to be read."""
    streams = new(window=Window(frames=3))
    tab = Tab(streams, "conv", flow=Flow(outbox_frames=1, unanswered_bytes=1))
    tab.join()
    await tab.level()
    tab.pong()
    for line in lines(
        9
    ):  # one is sent, one waits for a pong, one is in the outbox, the rest is not
        await publish(streams, line).flush()
        await asyncio.sleep(0)
    for sent in (1, 2, 3):
        assert (tab.position, tab.snapshots) == (sent, ["first"])
        tab.pong()
        await asyncio.sleep(1)
    await tab.saw("timeline.snapshot", 2)
    assert (tab.position, tab.snapshots) == (9, ["first", "slow"])
    await tab.drop()


@pytest.mark.parametrize("running", [True, False])
async def test_a_message_that_does_not_go_out_closes_its_socket_within_a_tick_of_ten_seconds(
    new, running: bool
):
    streams = new()
    stuck, other = Tab(streams, "conv"), Tab(streams, "conv")
    for tab in (stuck, other):
        tab.join()
        await tab.level()
    await publish(streams, *(inference(1)[:2] if running else lines(1))).flush()
    await other.level()
    await stuck.level()
    await asyncio.sleep(20)
    stuck.stall()
    began = seconds()
    await publish(streams, *lines(1)).flush()
    assert await stuck.closed() == CLOSE_SLOW
    pace = Pace()
    tick = pace.tick_active if running else pace.tick_idle
    assert 10 <= seconds() - began <= 10 + tick
    await other.level()
    await other.drop()


async def test_a_socket_that_was_too_slow_and_lingers_takes_nothing_from_the_others(new):
    streams = new()
    stuck, other = Tab(streams, "conv"), Tab(streams, "conv")
    for tab in (stuck, other):
        tab.join()
        await tab.level()
    await publish(streams, *inference(1)[:2]).flush()
    await stuck.level()
    stuck.stall()
    await publish(streams, *lines(1)).flush()
    await asyncio.sleep(120)
    assert stuck.was_closed
    assert len(await other.saw("ws.ping")) == 4
    assert await stuck.closed() == CLOSE_SLOW
    await other.drop()


async def test_a_client_that_asks_more_than_it_reads_is_closed(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    await tab.saw("timeline.snapshot")
    tab.stall()
    for n in range(34):
        tab.connection.reply(connection_frame("ws.pong", "conv", {"nonce": n}))
    tab.release()
    assert await tab.closed() == CLOSE_RATE


# Time


async def test_every_25_seconds_a_tab_is_told_where_the_head_is(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    await publish(streams, *inference(1, "a")).flush()
    beats = await tab.saw("ws.ping", 3)
    assert [beat["data"] for beat in beats] == [
        {"headSeq": 6, "serverTime": ms} for ms in (25_000, 50_000, 75_000)
    ]
    await tab.drop()


async def test_an_inference_that_nobody_watches_goes_on_and_the_next_tab_sees_all_of_it(new):
    streams = new()
    first = Tab(streams, "conv")
    first.join()
    publish(streams, *inference(1)[:2], ModelCallStarted(message_id="m1", model="model"))
    await streams.sink("conv").flush()
    await first.level()
    await first.drop()
    for n in range(100):
        publish(streams, TextDelta(f"{n} "))
        await asyncio.sleep(1)
    assert streams.following == ()
    second = Tab(streams, "conv")
    second.join()
    first.rejoin()
    for n in range(100, 110):
        publish(streams, TextDelta(f"{n} "))
        await asyncio.sleep(1)
    assert streams.following == ("conv",)
    await publish(streams, finished(1)).flush()
    text = "".join(f"{n} " for n in range(110))
    for tab in (first, second):
        await tab.level()
        assert tab.page.entities["m1"]["props"]["content"] == text
        assert tab.snapshots == ["first"]
        await tab.drop()


async def test_text_reaches_a_tab_in_the_moment_it_is_published(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    await tab.saw("timeline.snapshot")
    publish(streams, *inference(1)[:3])
    for piece in "abc":
        before = seconds()
        await publish(streams, TextDelta(piece)).flush()
        await tab.level()
        assert seconds() == before
        await asyncio.sleep(1)
    deltas = [event["data"]["delta"] for event in tab.seen if event["type"] == "llm.delta"]
    assert deltas == ["a", "b", "c"]
    await tab.drop()


async def test_an_hour_of_silence_is_nothing_but_heartbeats(new):
    streams = new()
    tab = Tab(streams, "conv")
    tab.join()
    await publish(streams, *inference(1, "a")).flush()
    await tab.level()
    await asyncio.sleep(3601)
    assert [event["type"] for event in tab.seen[-144:]] == ["ws.ping"] * 144
    await publish(streams, *inference(2, "b")).flush()
    await tab.level()
    assert tab.snapshots == ["first"]
    await tab.drop()
