"""What one socket is sent, from its hello to its close."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat.frames import Cursor
from chat.log import Window
from chat.pool import CLOSE_SLOW, Connection
from chat.pump import pump
from chat.streams import Streams
from sessions_app.inference.events import Event
from tests.chat.wire import ORIGIN, Tab, inference

pytestmark = pytest.mark.virtual


@pytest_asyncio.fixture
async def streams() -> AsyncIterator[Streams]:
    made = Streams(window=Window(frames=8))
    yield made
    await made.aclose()


async def publish(streams: Streams, *told: Event) -> None:
    for event in told:
        streams.sink("conv").publish(event, ORIGIN)
    await streams.sink("conv").flush()


async def test_the_first_frame_is_a_hello_with_every_key_of_the_protocol(streams: Streams):
    await publish(streams, *inference(1, "a")[:-2])
    epoch = streams.log("conv").epoch
    tab = Tab(streams, "conv")
    tab.join()
    [hello] = await tab.saw("ws.hello")
    assert abs(hello["data"].pop("serverTime") / 1000 - time.time()) < 60
    assert hello["data"] == {
        "convId": "conv",
        "sessionId": "conv",
        "runtimeKey": "chat",
        "protocol": 1,
        "epoch": epoch,
        "headSeq": 4,
        "cursor": f"{epoch}.4",
        "resumed": False,
        "missed": 0,
        "running": True,
        "inferenceId": "i1",
        "queueDepth": 0,
        "heartbeatMs": 25_000,
    }
    await tab.drop()


async def test_the_hello_of_an_idle_conversation_names_no_inference(streams: Streams):
    await publish(streams, *inference(1, "a"))
    tab = Tab(streams, "conv")
    tab.join()
    [hello] = await tab.saw("ws.hello")
    assert (hello["data"]["running"], hello["data"]["inferenceId"]) == (False, None)
    await tab.drop()


async def test_without_a_cursor_a_snapshot_stands_for_what_was(streams: Streams):
    await publish(streams, *inference(1, "a"))
    tab = Tab(streams, "conv")
    tab.join()
    await tab.level()
    assert [event["type"] for event in tab.seen] == ["ws.hello", "timeline.snapshot"]
    assert tab.snapshots == ["first"]
    await tab.drop()


async def test_an_empty_conversation_has_an_empty_snapshot_and_goes_on_from_there(
    streams: Streams,
):
    tab = Tab(streams, "conv")
    tab.join()
    [snapshot] = await tab.saw("timeline.snapshot")
    assert (snapshot["data"]["version"], snapshot["data"]["entities"]) == (0, [])
    await publish(streams, *inference(1, "a"))
    await tab.level()
    assert tab.position == 6
    await tab.drop()


async def test_a_cursor_at_the_head_gets_a_hello_and_nothing_else(streams: Streams):
    await publish(streams, *inference(1, "a"))
    tab = Tab(streams, "conv")
    tab.join(str(streams.log("conv").head))
    [hello] = await tab.saw("ws.hello")
    assert (hello["data"]["resumed"], hello["data"]["missed"]) == (True, 0)
    await asyncio.sleep(1)
    assert len(tab.seen) == 1
    await publish(streams, *inference(2, "b"))
    await tab.level()
    assert tab.snapshots == []
    await tab.drop()


async def test_the_cursor_before_the_first_frame_resumes_as_long_as_nothing_was_trimmed(
    streams: Streams,
):
    start = str(streams.log("conv").head)
    await publish(streams, *inference(1, "a"))
    tab = Tab(streams, "conv")
    tab.join(start)
    await tab.level()
    assert tab.snapshots == []
    await tab.drop()
    await publish(streams, *inference(2, "b"))
    late = Tab(streams, "conv")
    late.join(start)
    await late.level()
    assert late.snapshots == ["window"]
    await late.drop()


@pytest.mark.parametrize(
    ("epoch", "seq", "stream_id", "reason"),
    [
        (-1, 12, None, "epoch"),
        (1, 12, None, "epoch"),
        (0, 3, None, "window"),
        (0, 13, None, "ahead"),
        (0, 12, "0-0", "diverged"),
    ],
)
async def test_a_cursor_that_cannot_be_proved_gets_a_snapshot_that_says_why(
    streams: Streams, epoch: int, seq: int, stream_id: str | None, reason: str
):
    await publish(streams, *inference(1, "a"), *inference(2, "b"))
    tab = Tab(streams, "conv")
    tab.join(str(Cursor(streams.log("conv").epoch + epoch, seq, stream_id)))
    await tab.level()
    assert tab.seen[0]["data"]["resumed"] is False
    assert tab.seen[0]["data"]["missed"] == 0
    assert tab.snapshots == [reason]
    assert tab.position == 12
    await tab.drop()


async def test_a_reply_goes_to_its_socket_alone_and_not_before_the_hello(streams: Streams):
    one, two = Tab(streams, "conv"), Tab(streams, "conv")
    one.stall()
    one.join()
    two.join()
    one.connection.reply(json.dumps({"sem": True, "event": {"type": "ws.pong", "data": {}}}))
    one.release()
    await one.saw("ws.pong")
    assert one.seen[0]["type"] == "ws.hello"
    await two.saw("timeline.snapshot")
    assert "ws.pong" not in {event["type"] for event in two.seen}
    await one.drop()
    await two.drop()


async def test_a_close_is_the_pumps_end_and_what_was_said_before_it_goes_out(streams: Streams):
    tab = Tab(streams, "conv")
    tab.join()
    await tab.saw("timeline.snapshot")
    tab.connection.reply(json.dumps({"sem": True, "event": {"type": "ws.error", "data": {}}}))
    tab.connection.close(4513)
    await tab.saw("ws.error")
    assert await tab.closed() == 4513


async def test_after_a_close_no_frame_is_sent(streams: Streams):
    tab = Tab(streams, "conv")
    tab.join()
    await tab.saw("timeline.snapshot")
    streams.sink("conv").publish(inference(1, "a")[0], ORIGIN)
    tab.connection.close(4501)
    await streams.sink("conv").flush()
    assert await tab.closed() == 4501
    assert tab.position == 0


async def test_a_close_in_the_middle_of_a_batch_lets_out_no_more_than_what_is_on_its_way(
    streams: Streams,
):
    tab = Tab(streams, "conv")
    tab.join()
    await tab.level()
    tab.stall()
    await publish(streams, *inference(1, "a"))
    await asyncio.sleep(1)
    tab.connection.close(4501)
    tab.release()
    assert await tab.closed() == 4501
    assert tab.position == 1


async def test_a_pump_that_is_cancelled_in_a_send_leaves_the_client_a_prefix(streams: Streams):
    tab = Tab(streams, "conv")
    tab.join()
    await tab.level()
    tab.stall()
    await publish(streams, *inference(1, "a"))
    await asyncio.sleep(1)
    await tab.drop()
    assert tab.position == 0
    tab.release()
    tab.rejoin()
    await tab.level()
    assert tab.snapshots == ["first"]
    assert tab.position == 6
    await tab.drop()


class Gone(Exception):
    """What a server raises for a client that is no longer there."""


@pytest.mark.parametrize("at", [0, 1, 2, 5])
async def test_an_error_of_the_socket_is_the_pumps_end_and_nobody_elses(streams: Streams, at: int):
    sent: list[str] = []

    async def send(text: str) -> None:
        if len(sent) == at:
            raise Gone
        sent.append(text)

    witness = Tab(streams, "conv")
    witness.join()
    follower = streams.follower("conv")
    connection = Connection()
    follower.join(connection)
    pumping = asyncio.create_task(pump(connection, follower, send, cursor=None, profile="chat"))
    await witness.saw("timeline.snapshot")
    await publish(streams, *inference(1, "a"))
    with pytest.raises(Gone):
        await pumping
    await witness.level()
    await asyncio.sleep(90)
    assert len(await witness.saw("ws.ping")) >= 3
    follower.leave(connection)
    await witness.drop()


async def test_a_time_out_of_the_transport_is_a_client_that_is_too_slow(streams: Streams):
    async def send(text: str) -> None:
        raise TimeoutError

    follower = streams.follower("conv")
    connection = Connection()
    follower.join(connection)
    assert await pump(connection, follower, send, cursor=None, profile="chat") == CLOSE_SLOW
    follower.leave(connection)
