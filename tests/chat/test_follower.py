"""The one reader of a log in this process: no wake lost for long, no time spent on nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import pytest
import pytest_asyncio

from chat.follower import Pace, StreamFollower
from chat.frames import Cursor
from chat.log import Entry, Gap, MemoryFrameLog, Window
from chat.pool import Connection, Flow
from sessions_app.inference.events import Event
from tests.chat.wire import Json, finished, frames_of, inference, numbered

pytestmark = pytest.mark.virtual


class CountingLog(MemoryFrameLog):
    reads = 0

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        self.reads += 1
        return await super().read(after, limit=limit)

    def read_now(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap | None:
        self.reads += 1
        return super().read_now(after, limit=limit)


class Bench:
    """A follower of a log that we write, and whose wakes are ours to give or to lose."""

    def __init__(self, *, window: Window | None = None, pace: Pace | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = CountingLog("conv", epoch=1, window=window, now_ms=self.now_ms)
        self.stopped: list[float] = []
        self.follower = StreamFollower(
            self.log,
            pace=pace or Pace(),
            on_stop=lambda follower: self.stopped.append(self.loop.time()),
            now_ms=self.now_ms,
        )
        self.started = self.loop.time()

    def now_ms(self) -> int:
        return int(self.loop.time() * 1000)

    @property
    def seconds(self) -> float:
        return self.loop.time() - self.started

    async def write(self, *told: Event, wake: bool = True) -> None:
        after = self.log.head.seq
        await self.log.append(numbered(frames_of(told), after=after, at_ms=self.now_ms()))
        if wake:
            self.follower.wake()

    def join(self, **flow: float) -> Connection:
        """A socket that has read as far as the log goes."""
        connection = Connection(flow=Flow(**flow))  # type: ignore[arg-type]
        self.follower.join(connection)
        connection.cursor = self.log.head
        assert self.follower.level(connection)
        return connection


@pytest_asyncio.fixture
async def new() -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        made.append(Bench(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bench in made:
        await bench.follower.aclose()


async def filled(connection: Connection, head: int) -> float:
    """When the connection holds everything up to `head`."""
    while connection.cursor is None or connection.cursor.seq < head:
        await connection.wait()
    return asyncio.get_running_loop().time()


def pings(connection: Connection) -> list[Json]:
    return [json.loads(text)["event"] for text in connection.take_replies()]


async def test_what_is_in_the_log_is_offered_at_once_and_in_order(new):
    bench = new()
    one = bench.join()
    await bench.write(*inference(1, "a"))
    await filled(one, 6)
    assert [entry.seq for entry in one.take()] == [1, 2, 3, 4, 5, 6]
    assert bench.seconds == 0


async def test_more_than_a_page_arrives_whole(new):
    bench = new()
    one = bench.join(outbox_frames=10_000)
    for n in range(100):
        await bench.write(*inference(n, "a"))
    await filled(one, 600)
    assert [entry.seq for entry in one.take()] == list(range(1, 601))


async def test_a_doubled_or_early_wake_changes_nothing(new):
    bench = new()
    one = bench.join()
    for _ in range(3):
        bench.follower.wake()
        await asyncio.sleep(0)
    await bench.write(*inference(1, "a"))
    bench.follower.wake()
    await filled(one, 6)
    assert one.depth == 6
    assert one.live


async def test_a_socket_that_has_read_less_than_was_offered_is_not_live_yet(new):
    bench = new()
    other = bench.join()
    await bench.write(*inference(1, "a"))
    await filled(other, 6)
    late = Connection()
    bench.follower.join(late)
    late.cursor = Cursor(1, 5)
    assert not bench.follower.level(late)
    assert not late.live
    late.cursor = Cursor(1, 6)
    assert bench.follower.level(late)
    assert late.live


async def test_a_socket_of_another_life_of_the_log_is_never_live(new):
    bench = new()
    late = Connection()
    bench.follower.join(late)
    late.cursor = Cursor(2, 0)
    assert not bench.follower.level(late)


async def test_a_socket_that_saw_another_frame_of_that_number_is_not_live(new):
    bench = new()
    await bench.write(*inference(1, "a"))
    await filled(bench.join(), 6)
    late = Connection()
    bench.follower.join(late)
    late.cursor = Cursor(1, 6, "6-from-before-the-log-went-back")
    assert not bench.follower.level(late)


async def test_who_is_ahead_of_the_head_of_the_log_reads_it_again(new):
    bench = new()
    await bench.write(*inference(1, "a"))
    ahead = bench.join()
    await filled(ahead, 6)
    ahead.cursor = Cursor(1, 9)  # and then the log went back
    await asyncio.sleep(bench.follower.pace.tick_idle + 1)
    assert not ahead.live


async def test_a_socket_may_be_ahead_of_the_follower_and_gets_nothing_twice(new):
    bench = new()
    await bench.write(*inference(1, "a"), wake=False)
    ahead = bench.join()
    behind = Connection()
    bench.follower.join(behind)
    await bench.write(*inference(2, "b"))
    await filled(ahead, 12)
    assert [entry.seq for entry in ahead.take()] == [7, 8, 9, 10, 11, 12]


# Ticks


async def test_a_lost_wake_while_an_inference_runs_costs_a_second_at_most(new):
    bench = new()
    one = bench.join()
    # The idle tick is under way when the inference starts: it must not be waited for.
    await asyncio.sleep(0.5)
    await bench.write(*inference(1, "a")[:2])
    await filled(one, 2)
    await asyncio.sleep(0.25)
    written = bench.seconds
    await bench.write(*inference(1, "a")[2:-1], wake=False)
    await filled(one, 5)
    assert bench.seconds - written <= 1


async def test_wake_after_lost_wake_costs_a_second_at_most_in_a_long_inference(new):
    bench = new()
    one = bench.join()
    told = inference(1, "a")
    await bench.write(*told[:2])
    await asyncio.sleep(20)
    written = bench.seconds
    await bench.write(*told[2:-1], wake=False)
    await filled(one, 5)
    assert bench.seconds - written <= 1


async def test_a_lost_wake_of_an_idle_conversation_costs_an_idle_tick_at_most(new):
    bench = new()
    one = bench.join()
    await asyncio.sleep(3)
    await bench.write(*inference(1, "a"), wake=False)
    await filled(one, 6)
    assert bench.seconds <= 15


async def test_an_idle_follower_looks_up_a_few_times_a_minute_and_no_more(new):
    bench = new()
    bench.join()
    await asyncio.sleep(3600)
    assert bench.log.reads <= 3600 / 15 + 3600 / 25 + 2


async def test_a_follower_of_a_running_inference_looks_up_once_a_second(new):
    bench = new()
    bench.join()
    await bench.write(*inference(1, "a")[:2])
    await asyncio.sleep(3600)
    assert 3590 <= bench.log.reads <= 3600 + 3600 / 25 + 20


# Heartbeat


async def test_every_25_seconds_each_socket_is_told_where_the_head_is(new):
    bench = new()
    one, two = bench.join(), bench.join()
    await bench.write(*inference(1, "a"))
    await asyncio.sleep(101)
    for connection in (one, two):
        beats = pings(connection)
        assert [beat["type"] for beat in beats] == ["ws.ping"] * 4
        assert [beat["data"]["headSeq"] for beat in beats] == [6] * 4
        assert [beat["data"]["serverTime"] // 1000 for beat in beats] == [25, 50, 75, 100]
        assert all("seq" not in beat for beat in beats)


async def test_the_heart_beats_at_the_same_pace_while_an_inference_runs(new):
    bench = new()
    one = bench.join()
    await bench.write(*inference(1, "a")[:2])
    await asyncio.sleep(101)
    assert len(pings(one)) == 4


@pytest.mark.timeout(20)
async def test_a_beat_that_the_loop_calls_for_early_by_what_its_clock_resolves_is_one(new):
    await asyncio.sleep(61.001)  # 25 s later is the last bit of a float after the clock's next step
    bench = new()
    one = bench.join()
    await asyncio.sleep(26)
    assert len(pings(one)) == 1


# The end


async def test_without_a_socket_it_stops_after_a_minute_and_reads_no_more(new):
    bench = new()
    await asyncio.sleep(59)
    assert bench.stopped == []
    await asyncio.sleep(2)
    assert bench.stopped == [bench.started + 60]
    reads = bench.log.reads
    await asyncio.sleep(3600)
    assert bench.log.reads == reads
    assert [task for task in asyncio.all_tasks() if "follower" in task.get_name()] == []


async def test_it_stops_also_while_an_inference_goes_on(new):
    bench = new()
    await bench.write(*inference(1, "a")[:2])
    for _ in range(70):
        await bench.write(finished(1))
        await asyncio.sleep(1)
    assert bench.stopped == [bench.started + 60]


async def test_the_minute_starts_when_the_last_socket_leaves(new):
    bench = new()
    one, two = bench.join(), bench.join()
    await asyncio.sleep(100)
    bench.follower.leave(one)
    await asyncio.sleep(100)
    assert bench.stopped == []
    bench.follower.leave(two)
    await asyncio.sleep(50)
    three = bench.join()
    await asyncio.sleep(100)
    assert bench.stopped == []
    bench.follower.leave(three)
    await asyncio.sleep(61)
    assert bench.stopped == [bench.started + 410]


async def test_closing_ends_its_task_and_its_timer():
    bench = Bench()
    await bench.follower.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.sleep(3600)
    assert bench.stopped == []


# A log that has moved on


async def test_where_the_window_has_passed_it_every_socket_must_read_for_itself(new):
    bench = new(window=Window(frames=4))
    one = bench.join()
    await bench.write(*inference(1, "a"), *inference(2, "b"))
    assert await one.wait(60)
    assert not one.live
    assert bench.follower.cursor == bench.log.head
    one.cursor = bench.log.head
    assert bench.follower.level(one)
    await bench.write(finished(3))
    await filled(one, 13)
    assert one.depth == 1


async def send_for_ever(connection: Connection) -> None:
    """Returns when the send is ended from outside, as the pump's is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as connection.deadline:
            connection.sending_since = asyncio.get_running_loop().time()
            await asyncio.Event().wait()


async def test_a_message_on_its_way_for_too_long_ends_its_socket(new):
    bench = new()
    one = bench.join()
    await send_for_ever(one)
    # At its first look after ten seconds, and it looks every fifteen.
    assert 10 <= bench.seconds <= 15
