"""What a delivered frame costs, in counts that no noise moves. `make bench` measures the rest."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import pytest

import chat.coordinator
from chat.follower import Pace
from chat.frames import Cursor, StreamFrame, encode_body
from chat.log import Entry, Gap, MemoryFrameLog, Numbered
from chat.pool import Connection
from chat.pump import pump
from chat.streams import Streams
from sessions_app.inference.events import ModelCallStarted, TextDelta
from tests.chat.wire import ORIGIN

pytestmark = pytest.mark.virtual

CALL = ModelCallStarted(message_id="m", model="model")


class CountedLog(MemoryFrameLog):
    """A log that counts its round trips."""

    appends = 0
    reads = 0

    async def append(self, batch: Sequence[Numbered]) -> bool:
        type(self).appends += 1
        return await super().append(batch)

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        type(self).reads += 1
        return await super().read(after, limit=limit)

    def read_now(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap | None:
        type(self).reads += 1
        return super().read_now(after, limit=limit)


class Reader:
    """A socket that reads all it is sent at once."""

    def __init__(self, streams: Streams, conv_id: str) -> None:
        self.texts: list[str] = []
        connection, follower = Connection(), streams.follower(conv_id)
        follower.join(connection)
        pumping = pump(connection, follower, self._send, cursor=None, profile="chat")
        self.task = asyncio.create_task(pumping)

    async def _send(self, text: str) -> None:
        self.texts.append(text)


@asynccontextmanager
async def watched(**sockets: int) -> AsyncIterator[tuple[Streams, list[Reader]]]:
    """Conversations by name with so many live sockets each, a model call begun in all of them."""
    streams = Streams(pace=Pace(spacing=0), now_ms=lambda: 0)
    readers = [Reader(streams, conv) for conv, number in sockets.items() for _ in range(number)]
    for conv in sockets:
        streams.sink(conv).publish(CALL, ORIGIN)
    await say(streams, "first", conversations=sockets)
    for reader in readers:
        reader.texts.clear()
    try:
        yield streams, readers
    finally:
        for reader in readers:
            reader.task.cancel()
        await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
        await streams.aclose()


async def say(
    streams: Streams, *pieces: str, conversations: Sequence[str] | dict[str, int]
) -> None:
    """Publishes each piece alone, and returns when everybody has read all of them."""
    for piece in pieces:
        for conv in conversations:
            streams.sink(conv).publish(TextDelta(piece), ORIGIN)
        for _ in range(8):
            await asyncio.sleep(0)


PIECES = [f"{n} " for n in range(20)]


async def test_a_frame_is_encoded_once_however_many_sockets_it_goes_to(
    monkeypatch: pytest.MonkeyPatch,
):
    encoded: list[StreamFrame] = []

    def counted(frame: StreamFrame) -> str:
        encoded.append(frame)
        return encode_body(frame)

    async with watched(conv=30) as (streams, readers):
        monkeypatch.setattr(chat.coordinator, "encode_body", counted)
        await say(streams, *PIECES, conversations=["conv"])
        assert len(encoded) == len(PIECES)
        first, *others = (reader.texts for reader in readers)
        assert len(first) == len(PIECES)
        for other in others:
            assert all(mine is theirs for mine, theirs in zip(first, other, strict=True))


async def test_delivery_makes_no_task_and_asks_no_thread(monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def counting(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(f"task {coro}")
        return asyncio.Task(coro, loop=loop, **options)

    def no_thread(*args: Any) -> Any:
        made.append(f"thread {args}")
        raise AssertionError("a frame takes a detour through a thread")

    async with watched(conv=10) as (streams, readers):
        monkeypatch.setattr(loop, "run_in_executor", no_thread)
        loop.set_task_factory(counting)
        await say(streams, *PIECES, conversations=["conv"])
        loop.set_task_factory(None)
        assert made == []
        assert all(len(reader.texts) == len(PIECES) for reader in readers)


async def test_a_batch_is_one_append_and_one_read_however_many_sockets_wait(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("chat.streams.MemoryFrameLog", CountedLog)
    async with watched(conv=10) as (streams, readers):
        CountedLog.appends = CountedLog.reads = 0
        await say(streams, *PIECES, conversations=["conv"])
        assert (CountedLog.appends, CountedLog.reads) == (len(PIECES), len(PIECES))
        for piece in PIECES:  # all at once are one batch, and one frame
            streams.sink("conv").publish(TextDelta(piece), ORIGIN)
        await say(streams, conversations=["conv"])
        await streams.sink("conv").flush()
        assert (CountedLog.appends, CountedLog.reads) == (len(PIECES) + 1, len(PIECES) + 1)
        assert all(len(reader.texts) == len(PIECES) + 1 for reader in readers)


async def test_an_event_costs_the_same_however_many_sockets_other_conversations_have():
    await calls_to_say(conv=2, other=1)  # what is made at first use is no event's cost
    alone = await calls_to_say(conv=2, other=0)
    beside_many = await calls_to_say(conv=2, other=200)
    assert alone == beside_many


async def calls_to_say(**sockets: int) -> int:
    """Calls of Python functions that the pieces take in the first conversation."""
    calls = 0

    def counted(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    async with watched(**sockets) as (streams, readers):
        before = sys.getprofile()
        gc.disable()  # what other tests left may have finalizers
        sys.setprofile(counted)
        try:
            await say(streams, *PIECES, conversations=["conv"])
        finally:
            sys.setprofile(before)
            gc.enable()
        assert len(readers[0].texts) == len(PIECES)
    return calls
