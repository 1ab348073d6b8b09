"""The streams of a process: one writer, one log and at most one reader for each conversation."""

from __future__ import annotations

import asyncio

import pytest

from chat.frames import Cursor
from chat.pool import CLOSE_RESTARTING
from chat.streams import StreamInfo, Streams
from tests.chat.wire import ORIGIN, Tab, inference

pytestmark = pytest.mark.virtual


async def test_a_conversation_has_one_writer_and_one_log_and_another_has_others():
    streams = Streams()
    assert streams.sink("a") is streams.sink("a")
    assert streams.log("a") is streams.log("a")
    assert streams.sink("a") is not streams.sink("b")
    assert streams.log("a") is not streams.log("b")


async def test_the_logs_of_a_process_live_in_different_epochs():
    streams = Streams(now_ms=lambda: 5)
    assert streams.log("a").epoch < streams.log("b").epoch


async def test_what_one_conversation_says_is_not_heard_in_another():
    streams = Streams()
    a, b = Tab(streams, "a"), Tab(streams, "b")
    a.join()
    b.join()
    for event in inference(1, "Hello"):
        streams.sink("a").publish(event, ORIGIN)
    await streams.sink("a").flush()
    await a.level()
    await b.level()
    assert (a.position, b.position) == (6, 0)
    await a.drop()
    await b.drop()
    await streams.aclose()


async def test_a_stream_says_how_it_is_and_asking_makes_none():
    streams = Streams()
    assert streams.info("a") == StreamInfo()
    assert await streams.window("a") == ()
    tab = Tab(streams, "a")
    tab.join()
    for event in inference(1, "Hello"):
        streams.sink("a").publish(event, ORIGIN)
    await streams.sink("a").flush()
    log = streams.log("a")
    assert streams.info("a") == StreamInfo(
        cursor=str(log.head),
        epoch=log.epoch,
        head_seq=6,
        sockets=1,
        frames=6,
        bytes=streams.size("a"),
    )
    events = [entry.event for entry in await streams.window("a", since_seq=1)]
    assert events[0] == "InferenceStarted"
    assert events[-1] == "InferenceFinished"
    await tab.drop()
    await streams.aclose()


async def test_the_follower_is_started_when_it_is_asked_for_and_then_kept():
    streams = Streams()
    streams.sink("a")
    assert list(streams.following) == []
    follower = streams.follower("a")
    assert streams.follower("a") is follower
    assert list(streams.following) == ["a"]
    await streams.aclose()
    assert list(streams.following) == []


async def test_asking_for_a_head_creates_nothing():
    streams = Streams()
    assert streams.head_seq("a") == 0
    assert streams.following == ()
    streams.sink("a").publish(inference(1)[0], ORIGIN)
    await streams.sink("a").flush()
    assert streams.head_seq("a") == 1
    await streams.aclose()


async def test_the_snapshot_is_that_of_the_log():
    streams = Streams(now_ms=lambda: 5)
    for event in inference(1, "Hello"):
        streams.sink("a").publish(event, ORIGIN)
    await streams.sink("a").flush()
    assert await streams.snapshot("a") == await streams.log("a").snapshot()
    changed = await streams.snapshot("a", since_version=5)
    assert [entity.id for entity in changed.entities] == ["i1"]
    await streams.aclose()


async def test_every_socket_of_the_process_is_known():
    streams = Streams()
    tabs = [Tab(streams, conv_id) for conv_id in ("a", "a", "b")]
    for tab in tabs:
        tab.join()
        await tab.saw("timeline.snapshot")
    assert set(streams.connections()) == {tab.connection for tab in tabs}
    for tab in tabs:
        await tab.drop()
    assert streams.connections() == ()
    await streams.aclose()


async def test_closing_logs_what_was_published_and_leaves_no_task():
    streams = Streams()
    for conv_id in ("a", "b"):
        streams.follower(conv_id)
        for event in inference(1, "Hello"):
            streams.sink(conv_id).publish(event, ORIGIN)
    await streams.aclose()
    assert (streams.head_seq("a"), streams.head_seq("b")) == (6, 6)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await streams.aclose()


async def test_a_follower_that_stopped_is_forgotten_and_the_log_stays():
    streams = Streams()
    first = streams.follower("a")
    for event in inference(1, "Hello"):
        streams.sink("a").publish(event, ORIGIN)
    await asyncio.sleep(61)
    assert streams.following == ()
    second = streams.follower("a")
    assert second is not first
    page = await streams.log("a").read(Cursor(streams.log("a").epoch, 0), limit=100)
    assert [entry.seq for entry in page] == [1, 2, 3, 4, 5, 6]  # type: ignore[union-attr]
    await streams.aclose()


async def test_a_conversation_that_is_gone_leaves_no_task_and_its_sockets_are_told():
    streams = Streams()
    tab = Tab(streams, "a")
    tab.join()
    for event in inference(1, "Hello"):
        streams.sink("a").publish(event, ORIGIN)
    await streams.sink("a").flush()
    await tab.level()
    streams.sink("a").publish(inference(2)[0], ORIGIN)
    streams.forget("a")
    assert await tab.closed() == 4509
    await asyncio.sleep(3600)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert streams.head_seq("a") == 0
    streams.forget("a")
    await streams.aclose()


async def test_a_socket_whose_log_is_away_when_the_process_goes_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
):
    async def away(*args: object, **asked: object) -> None:
        await asyncio.Event().wait()

    streams = Streams()
    tab = Tab(streams, "a")
    monkeypatch.setattr(streams.log("a"), "read", away)
    tab.join("1.0")
    await asyncio.sleep(1)
    await streams.aclose()
    assert await tab.closed() == CLOSE_RESTARTING
