"""The one writer: events in, in their order; numbered frames in the log, at once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from typing import cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.coordinator import INBOX_MAX_CHARS, INBOX_MAX_EVENTS, StreamCoordinator
from chat.counts import StreamCounts
from chat.frames import Cursor
from chat.log import Gap, MemoryFrameLog, Numbered
from sessions_app.inference.errors import StreamStalled
from sessions_app.inference.events import (
    Event,
    Log,
    ModelCallStarted,
    Origin,
    StopReason,
    TextDelta,
    ThinkingDelta,
)
from sessions_app.testing import Gate
from tests.awaits import Moment, awaits_of, meet
from tests.chat.wire import (
    ORIGIN,
    FarLog,
    Json,
    Page,
    conversations,
    finished,
    frames_of,
    inference,
)

pytestmark = pytest.mark.virtual

CALL = ModelCallStarted(message_id="m", model="model")


class Store(MemoryFrameLog):
    """A log whose store takes until `door` opens, and remembers the batches it was given."""

    def __init__(self) -> None:
        super().__init__("conv", epoch=1, now_ms=lambda: 0)
        self.door: Gate | None = None
        self.far = False
        self.error: Exception | None = None
        self.batches: list[int] = []
        self.settles = True
        self.commits = 0

    async def append(self, batch: Sequence[Numbered]) -> bool:
        if self.door is not None:
            await self.door.passed()
        if self.error is not None:
            raise self.error
        if self.far:
            await asyncio.sleep(0)
        self.batches.append(len(batch))
        await super().append(batch)
        return self.settles

    async def commit(self) -> None:
        self.commits += 1

    async def wire(self) -> list[Json]:
        page = await self.read(Cursor(1, 0), limit=10**6)
        assert not isinstance(page, Gap)
        return [json.loads(entry.text)["event"] for entry in page]


class Bench:
    def __init__(self) -> None:
        self.log = Store()
        self.wakes = 0
        self.woken = asyncio.Event()
        self.coordinator = StreamCoordinator(self.log, wake=self.wake, now_ms=lambda: 0)

    def wake(self) -> None:
        self.wakes += 1
        self.woken.set()

    def publish(self, *told: Event, origin: Origin | None = ORIGIN) -> None:
        for event in told:
            self.coordinator.publish(event, origin)

    def publish_or_refuse(self, event: Event) -> None:
        """A mistake may also be told at once to the engine that makes it."""
        with suppress(TypeError):
            self.publish(event)

    async def deltas(self) -> list[tuple[str, str]]:
        await self.coordinator.flush()
        wire = await self.log.wire()
        return [(e["id"], e["data"]["delta"]) for e in wire if e["type"].endswith(".delta")]


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    # A writer that died is seen by the test that waits for it. To report it once more, from
    # wherever its task is collected, can crash pytest on Python 3.11 (CPython gh-106905).
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    made = Bench()
    yield made
    with suppress(TimeoutError):
        await asyncio.wait_for(made.coordinator.aclose(), 60)


# Order


@settings(max_examples=100, deadline=None)
@given(conversations, st.lists(st.tuples(st.integers(1, 10), st.integers(0, 3)), max_size=10))
async def test_however_events_are_bunched_a_page_that_reads_the_log_shows_its_snapshot(
    told: list[Event], bunches: list[tuple[int, int]]
):
    bench, events = Bench(), iter(told)
    for size, turns in [*bunches, (len(told), 0)]:
        bench.publish(*islice(events, size))
        for _ in range(turns):
            await asyncio.sleep(0)
    await bench.coordinator.flush()
    page = Page()
    for event in await bench.log.wire():
        page.take(event)
    snapshot = await bench.log.snapshot()
    assert [e["id"] for e in page.entities.values()] == [e.id for e in snapshot.entities]
    assert page.version == snapshot.version == bench.log.head.seq
    await bench.coordinator.aclose()


async def test_the_frames_are_those_of_the_events_in_their_order_numbered_from_one(bench: Bench):
    told = inference(1, "Hello", thinking="hm")
    for event in told:
        bench.publish(event)
        await bench.coordinator.flush()
    wire = await bench.log.wire()
    assert [event["seq"] for event in wire] == list(range(1, len(wire) + 1))
    assert [event["id"] for event in wire] == [frame.id for frame in frames_of(told)]


async def test_a_flush_commits_what_did_not_go_along_with_its_frames(bench: Bench):
    for settles, commits in ((True, 0), (False, 1)):
        bench.log.settles = settles
        bench.publish(*inference(1, "Hello"))
        await bench.coordinator.flush()
        assert bench.log.commits == commits
    await bench.coordinator.flush()  # no frame at all
    assert bench.log.commits == 2


async def test_a_batch_is_appended_whole_and_readers_are_woken_once_for_it(bench: Bench):
    bench.publish(*inference(1, "Hello"))
    await bench.coordinator.flush()
    assert bench.log.batches == [6]
    assert bench.wakes == 1


async def test_readers_are_woken_only_when_the_frames_can_be_read():
    log = Store()
    heads: list[int] = []
    coordinator = StreamCoordinator(log, wake=lambda: heads.append(log.head.seq))
    for event in inference(1, "Hello"):
        coordinator.publish(event, ORIGIN)
    await coordinator.flush()
    assert heads == [6]
    await coordinator.aclose()


async def test_a_bug_as_readers_are_told_is_no_failure_of_the_log(caplog: pytest.LogCaptureFixture):
    log, counts = Store(), StreamCounts()

    def trips() -> None:
        raise RuntimeError("a bug in the offering")

    coordinator = StreamCoordinator(log, wake=trips, counts=counts, now_ms=lambda: 0)
    for n in (1, 2):
        coordinator.publish(Log(message=f"line {n}"), ORIGIN)
        await coordinator.flush()

    assert log.head.seq == counts.frames == 2
    assert counts.drops == {"offer_failed": 2}
    assert "a bug in the offering" in caplog.text
    await coordinator.aclose()


async def test_internal_events_wake_nobody(bench: Bench):
    bench.publish(CALL)
    await bench.coordinator.flush()
    assert (bench.log.batches, bench.wakes) == ([], 0)


async def test_a_lone_event_is_logged_without_waiting_for_company(bench: Bench):
    loop = asyncio.get_running_loop()
    before = loop.time()
    bench.publish(*inference(1)[:1])
    await bench.coordinator.flush()
    assert bench.log.head.seq == 1
    bench.woken.clear()
    bench.publish(CALL, TextDelta("a"))
    await asyncio.wait_for(bench.woken.wait(), 60)
    assert bench.log.head.seq == 3
    assert loop.time() == before


# Merging


async def test_deltas_that_wait_together_go_out_as_one(bench: Bench):
    bench.publish(CALL, TextDelta("a"), TextDelta("b"), TextDelta("c"))
    assert await bench.deltas() == [("m", "abc")]


async def test_deltas_that_do_not_wait_go_out_one_by_one(bench: Bench):
    bench.publish(CALL)
    for piece in "abc":
        bench.publish(TextDelta(piece))
        await bench.coordinator.flush()
    assert await bench.deltas() == [("m", "a"), ("m", "b"), ("m", "c")]


async def test_what_comes_while_the_store_is_slow_is_merged_into_the_next_batch(bench: Bench):
    bench.log.door = Gate("store")
    bench.publish(CALL, TextDelta("a"))
    await bench.log.door.reached()
    for piece in "bcd":
        bench.publish(TextDelta(piece))
    bench.log.door.open()
    assert await bench.deltas() == [("m", "a"), ("m", "bcd")]


async def test_text_and_thinking_are_not_merged(bench: Bench):
    bench.publish(
        CALL, TextDelta("a"), ThinkingDelta("b"), ThinkingDelta("c"), TextDelta("d"), TextDelta("e")
    )
    assert await bench.deltas() == [("m", "a"), ("m:thinking", "bc"), ("m:2", "de")]


async def test_deltas_are_not_merged_across_another_event(bench: Bench):
    bench.publish(CALL, TextDelta("a"), Log(message="note"), TextDelta("b"))
    assert await bench.deltas() == [("m", "a"), ("m", "b")]


async def test_deltas_of_two_inferences_are_not_merged(bench: Bench):
    bench.publish(CALL, TextDelta("a"))
    bench.publish(TextDelta("b"), origin=Origin(inference_id="other", turn_id="t2"))
    assert await bench.deltas() == [("m", "a"), ("m", "b")]
    assert [e["inference_id"] for e in await bench.log.wire()] == ["i", "i", "other"]


# Flush


async def test_after_a_flush_all_that_was_published_before_it_is_in_the_log(bench: Bench):
    bench.log.door = Gate("store")
    bench.publish(*inference(1, "Hello"))
    flushing = asyncio.create_task(bench.coordinator.flush())
    await bench.log.door.reached()
    assert not flushing.done()
    bench.log.door.open()
    await flushing
    assert bench.log.head.seq == 6


async def test_a_flush_with_nothing_to_log_returns(bench: Bench):
    await bench.coordinator.flush()
    assert bench.log.batches == []


async def test_any_number_may_flush_and_one_that_goes_away_troubles_nobody(bench: Bench):
    bench.log.door = Gate("store")
    bench.publish(*inference(1, "Hello"))
    flushers = [asyncio.create_task(bench.coordinator.flush()) for _ in range(4)]
    await bench.log.door.reached()
    flushers[1].cancel()
    late = asyncio.create_task(bench.coordinator.flush())
    bench.log.door.open()
    await asyncio.wait({*flushers, late})
    assert [flusher.cancelled() for flusher in flushers] == [False, True, False, False]
    assert late.exception() is None


# Bounds


async def test_more_text_than_the_inbox_holds_is_refused_but_the_end_is_always_taken(bench: Bench):
    bench.log.door = Gate("store")
    bench.publish(CALL, TextDelta("first"))
    await bench.log.door.reached()
    bench.publish(TextDelta("x" * (INBOX_MAX_CHARS - 1)))
    with pytest.raises(StreamStalled):
        bench.publish(ThinkingDelta("xx"))
    bench.publish(TextDelta("y"))
    with pytest.raises(StreamStalled):
        bench.publish(TextDelta("z"))
    bench.publish(finished(1))
    bench.log.door.open()
    await bench.coordinator.flush()
    last = (await bench.log.snapshot()).entities[-1]
    assert (last.id, last.props["status"]) == ("i1", "completed")
    bench.publish(CALL, TextDelta("again"))


async def test_more_events_than_the_inbox_holds_are_refused_but_the_end_is_always_taken(
    bench: Bench,
):
    bench.log.door = Gate("store")
    bench.publish(Log(message="first"))
    await bench.log.door.reached()
    note = TextDelta("")
    for _ in range(INBOX_MAX_EVENTS):
        bench.coordinator.publish(note, ORIGIN)
    with pytest.raises(StreamStalled):
        bench.publish(note)
    with pytest.raises(StreamStalled):
        bench.publish(Log(message="x"))
    bench.publish(finished(1))
    bench.log.door.open()
    await bench.coordinator.flush()
    assert (await bench.log.wire())[-1]["type"] == "inference.finished"


# Poison

POISON: dict[str, Event] = {
    "a field that is no JSON": Log(message="x", fields={"it": object()}),
    "a field that is no text": Log(message="x", fields={"it": "\ud800"}),
    "a message that is no text": Log(message=cast("str", 7)),
    "bytes for text": TextDelta(cast("str", b"raw")),
    "bytes for thinking": ThinkingDelta(cast("str", b"raw")),
    "a list for text": TextDelta(cast("str", ["x"])),
    "no event": cast("Event", object()),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_an_event_that_cannot_be_a_frame_is_dropped_and_the_rest_goes_on(
    bench: Bench, poison: Event
):
    bench.publish(CALL, TextDelta("a"))
    bench.publish_or_refuse(poison)
    bench.publish(Log(message="y"), TextDelta("b"), finished(1))
    async with asyncio.timeout(60):
        await bench.coordinator.flush()
    page = Page()
    for event in await bench.log.wire():
        page.take(event)
    assert page.entities["m"]["props"]["content"] == "ab"
    assert page.entities["i1"]["props"]["status"] == "completed"


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_an_event_that_cannot_be_a_frame_takes_no_good_text_with_it(
    bench: Bench, poison: Event
):
    bench.publish(CALL, TextDelta("a"), ThinkingDelta("t"), TextDelta("b"))
    bench.publish_or_refuse(poison)
    bench.publish(TextDelta("c"), ThinkingDelta("u"), finished(1))
    async with asyncio.timeout(60):
        assert "".join(text for _, text in await bench.deltas()) == "atbcu"


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_an_event_that_cannot_be_a_frame_leaves_the_story_well_told(
    bench: Bench, poison: Event
):
    bench.publish(CALL)
    bench.publish_or_refuse(poison)
    async with asyncio.timeout(60):
        await bench.coordinator.flush()
    bench.publish(TextDelta("a"), finished(1))
    async with asyncio.timeout(60):
        await bench.coordinator.flush()
    kinds = [event["type"] for event in await bench.log.wire() if event["id"] == "m"]
    assert kinds == ["llm.start", "llm.delta", "llm.final"]


async def test_the_end_of_an_inference_is_logged_even_if_something_in_it_cannot_be(bench: Bench):
    odd = dataclasses.replace(finished(1), stop_reason=cast("StopReason", object()))
    bench.publish(*inference(1, "Hello")[:-1], odd)
    await bench.coordinator.flush()
    assert [e["id"] for e in await bench.log.wire() if e["type"] == "inference.finished"] == ["i1"]


async def test_a_store_that_fails_leaves_nobody_waiting_for_ever(bench: Bench):
    bench.log.error = OSError("the store is gone")
    bench.publish(*inference(1, "Hello"))
    async with asyncio.timeout(60):
        with suppress(OSError):
            await bench.coordinator.flush()


# The end


async def test_closing_logs_what_was_published_and_leaves_no_task():
    bench = Bench()
    bench.publish(*inference(1, "Hello"))
    await bench.coordinator.aclose()
    assert bench.log.head.seq == 6
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await bench.coordinator.aclose()


async def test_closing_a_coordinator_that_never_wrote_is_nothing():
    await Bench().coordinator.aclose()


async def test_publishing_after_the_close_starts_it_again():
    bench = Bench()
    bench.publish(*inference(1, "Hello"))
    await bench.coordinator.aclose()
    bench.publish(*inference(2, "again"))
    await bench.coordinator.flush()
    assert bench.log.head.seq == 12
    await bench.coordinator.aclose()


@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
async def test_what_is_published_while_it_closes_is_logged_too(far: bool):
    bench = Bench()
    bench.log.far = far
    bench.publish(*inference(1, "Hello"))

    async def speak_on() -> None:
        await bench.coordinator.flush()
        bench.publish(*inference(2, "again"))
        await bench.coordinator.flush()

    speaking = asyncio.create_task(speak_on())
    await asyncio.sleep(0)
    await bench.coordinator.aclose()
    async with asyncio.timeout(60):
        await speaking
    assert bench.log.head.seq == 12
    await bench.coordinator.aclose()


class Speaking:
    """A story for the hook: three inferences are told to a writer whose log is far away."""

    def __init__(self) -> None:
        self.others: list[asyncio.Task[None]] = []
        self.refused = 0

    async def __call__(self) -> None:
        self.log = FarLog("conv", epoch=1, now_ms=lambda: 0)
        self.log.lags = cycle([2])
        self.coordinator = StreamCoordinator(self.log, wake=lambda: None)
        await asyncio.create_task(self._speak(), name="speaker")
        await asyncio.gather(*self.others)
        await self.coordinator.aclose()

    async def _speak(self) -> None:
        for n in (1, 2, 3):
            for event in inference(n, "Hello"):
                self.coordinator.publish(event, ORIGIN)
                await asyncio.sleep(0)
            try:
                await self.coordinator.flush()
            except StreamStalled:
                self.refused += 1


def test_whenever_it_is_closed_all_that_is_published_is_logged():
    def close(story: Speaking) -> None:
        story.others.append(asyncio.create_task(story.coordinator.aclose(), name="story: closes"))

    for number in range(1, len(awaits_of(Speaking())) + 1):
        story = Speaking()
        meet(story, number, lambda moment, story=story: close(story))  # type: ignore[misc]
        assert (story.log.head.seq, story.refused) == (18, 0), number


def test_wherever_its_task_is_ended_nobody_waits_for_ever_and_the_next_are_logged():
    def end(moment: Moment) -> None:
        if moment.task.get_name() == "coordinator:conv":
            moment.task.cancel()

    for number in range(1, len(awaits_of(Speaking())) + 1):
        story = Speaking()
        meet(story, number, end)
        # What it was writing may be lost with it, but not what came before or after.
        assert 18 - 6 <= story.log.head.seq <= 18, number
