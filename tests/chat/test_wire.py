"""Stream frames as bytes of a websocket, and the sockets that take them in place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.follower import Pace
from chat.pool import CLOSE_RESTARTING, Connection, Flow
from chat.pump import pump
from chat.streams import Streams
from chat.wire import message, writing
from sessions_app.inference.events import Event, Log
from tests.chat.wire import ORIGIN, Tab, finished, inference, texts_of


@pytest.mark.parametrize("size", [0, 1, 125, 126, 214, 65535, 65536, 300_000])
def test_a_message_is_one_whole_text_of_a_websocket_whatever_its_size(size: int):
    assert texts_of(message("x" * size)) == ["x" * size]


@settings(max_examples=25)
@given(st.lists(st.text(max_size=150), max_size=4))
def test_messages_one_after_the_other_are_read_as_they_were_written(texts: list[str]):
    assert texts_of(b"".join(map(message, texts))) == texts


def test_a_server_that_offers_nothing_is_sent_to():
    assert writing({}) is None
    assert writing({"extensions": None}) is None
    assert writing({"extensions": {"websocket.http.response": {}}}) is None


@pytest_asyncio.fixture
async def streams() -> AsyncIterator[Streams]:
    made = Streams(pace=Pace(spacing=0), now_ms=lambda: 0)
    yield made
    await made.aclose()


class Socket:
    """A socket of a server of ours: `written` in place, `sent` by the pump."""

    def __init__(self, streams: Streams, *, flow: Flow | None = None) -> None:
        self.written: list[bytes] = []
        self.sent: list[str] = []
        self.takes = True
        self.error: OSError | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.connection, self.follower = Connection(flow=flow), streams.follower("conv")
        self.follower.join(self.connection)
        self.pumping = asyncio.create_task(
            pump(
                self.connection,
                self.follower,
                self._send,
                cursor=None,
                profile="chat",
                write=self._write,
            )
        )

    def _write(self, messages: bytes) -> bool:
        if self.error is not None:
            raise self.error
        if self.takes:
            self.written.append(messages)
        return self.takes

    async def _send(self, text: str) -> None:
        await self.reads.wait()
        self.sent.append(text)

    async def leave(self) -> None:
        self.follower.leave(self.connection)
        self.pumping.cancel()
        await asyncio.wait({self.pumping})


async def publish(streams: Streams, *told: Event) -> None:
    for event in told:
        streams.sink("conv").publish(event, ORIGIN)
    await streams.sink("conv").flush()


LINES = [Log(message=f"line {number}") for number in range(8)]


@pytest.mark.virtual
async def test_sockets_that_wait_get_the_same_bytes_in_the_step_that_logs_them(streams: Streams):
    sockets = [Socket(streams) for _ in range(5)]
    await asyncio.sleep(1)
    for line in LINES:
        await publish(streams, line)
        # By then it is on the wire, without a turn of the loop for any of them.
        assert texts_of(sockets[0].written[-1]) == [(await streams.window("conv"))[-1].text]
    for socket in sockets:
        assert all(a is b for a, b in zip(socket.written, sockets[0].written, strict=True))
        assert len(socket.sent) == 2, "hello and snapshot"
    assert streams.counts.frames_sent == 5 * len(LINES)
    for socket in sockets:
        await socket.leave()


@pytest.mark.virtual
async def test_what_a_socket_does_not_take_in_place_it_is_sent_and_nothing_overtakes_it(
    streams: Streams,
):
    socket = Socket(streams)
    await asyncio.sleep(1)
    socket.takes = False
    socket.reads.clear()
    await publish(streams, LINES[0])
    socket.takes = True  # but the first is still on its way
    await publish(streams, *LINES[1:])
    assert socket.written == []
    socket.reads.set()
    await asyncio.sleep(1)
    assert [*socket.sent[2:], *texts_of(b"".join(socket.written))] == [
        entry.text for entry in await streams.window("conv")
    ]
    await socket.leave()


@pytest.mark.virtual
async def test_a_socket_that_raises_in_place_costs_the_others_nothing(streams: Streams):
    broken, socket, witness = Socket(streams), Socket(streams), Tab(streams, "conv")
    witness.join()
    await asyncio.sleep(1)
    broken.error = OSError("gone")
    await publish(streams, *LINES)
    await witness.level()
    assert len(texts_of(b"".join(socket.written))) == len(LINES)
    with pytest.raises(OSError, match="gone"):
        await broken.pumping
    await broken.leave()
    await socket.leave()
    await witness.drop()


@pytest.mark.virtual
async def test_in_place_no_more_goes_out_than_the_client_may_leave_unanswered(streams: Streams):
    line = Log(message="x" * 1000)
    socket = Socket(streams, flow=Flow(unanswered_bytes_silent=8000))
    await asyncio.sleep(1)
    for _ in range(20):
        await publish(streams, line)
    await asyncio.sleep(1)
    assert 5 <= len(texts_of(b"".join(socket.written))) <= 8
    socket.connection.acknowledge(streams.head_seq("conv"))
    await asyncio.sleep(1)
    assert len(texts_of(b"".join(socket.written))) == 20
    await socket.leave()


@pytest.mark.virtual
async def test_who_is_asked_to_leave_goes_at_once_after_an_end_that_others_get_in_place(
    streams: Streams,
):
    socket = Socket(streams)
    await publish(streams, *inference(1, "a")[:-1])
    await asyncio.sleep(1)
    socket.connection.leave(CLOSE_RESTARTING)
    await asyncio.sleep(1)
    assert not socket.pumping.done()
    await publish(streams, finished(1))
    await asyncio.sleep(0.001)
    assert socket.pumping.result() == CLOSE_RESTARTING
    assert "inference.finished" in texts_of(b"".join(socket.written))[-1]
    await socket.leave()


@pytest.mark.virtual
async def test_a_burst_goes_out_in_one_write_a_spacing_and_a_lone_frame_at_once():
    streams = Streams(pace=Pace(spacing=0.25), now_ms=lambda: 0)
    socket = Socket(streams)
    await asyncio.sleep(1)
    await publish(streams, LINES[0])
    assert len(socket.written) == 1, "it was held back for company"
    for line in LINES[1:]:
        await publish(streams, line)
    await asyncio.sleep(0.24)
    assert len(socket.written) == 1
    await asyncio.sleep(0.02)
    assert [len(texts_of(each)) for each in socket.written] == [1, len(LINES) - 1]
    await asyncio.sleep(0.3)
    await publish(streams, LINES[0])
    assert len(socket.written) == 3
    await socket.leave()
    await streams.aclose()
