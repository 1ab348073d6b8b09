"""Thousands of clients, and those that read nothing: full size, on servers of their own.

tests/border/test_hostile.py has the same at a size for every day.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio

import bench.client
from bench.orders import Orders
from chat.serving.listener import raise_descriptor_limit
from tests.border.test_hostile import KiB, MiB, hostile, memory, seq_of, until_sockets
from tests.client import Visitor, cursor_after, visitor
from tests.live import OPERATED, SERVERS, SHARED, LiveServer, live_server
from tests.wire import CLOSE, PING, PONG, Wire, frame

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

T = TypeVar("T")

SOCKETS = 5000
DESCRIPTORS = SOCKETS + 1000
"""That this process may open, and the server."""
AT_ONCE = 50
"""Of those that come in an orderly way."""
TURNED_AWAY = (ConnectionError, asyncio.IncompleteReadError, AssertionError)
"""What a client meets that comes when too many do."""
ANSWER = Orders(frames=30).encode()
STUCK = 40  # but for the one that may hold 16 MiB: others of its conversation would share them
LONG = 20_000
"""Pieces of an answer that is over 4 MiB of frames: more than any server but Daphne lets wait."""
ANSWERS_PING = b'{"type":"ws.pong","seq":0}'
STREAM_FRAME = b'"event":{"seq":'
ASKED = 50
GIVEN_UP_SECONDS = 120.0
BACK_SECONDS = 300.0
"""For all of a storm to have what they missed."""


@pytest_asyncio.fixture(params=SERVERS)
async def own(request: pytest.FixtureRequest) -> AsyncIterator[LiveServer]:
    """A server that nobody else has used: what it holds is this test's. `kind` names it."""
    allowed = raise_descriptor_limit()
    assert allowed >= DESCRIPTORS, f"{allowed} descriptors a process, {DESCRIPTORS} are needed"
    env = {"DJANGO_SETTINGS_MODULE": "bench.settings", "WEBCHAT_MODEL": "bench:fast"}
    async with live_server(request.param, env={**OPERATED, **SHARED, **env}) as server:
        yield server


@pytest.fixture
def kind(own: LiveServer) -> str:
    command: list[str] = psutil.Process(own.process.pid).cmdline()
    return command[command.index("--server") + 1]


@pytest_asyncio.fixture
async def cora(own: LiveServer) -> AsyncIterator[Visitor]:
    async with visitor(own.url) as somebody:
        yield somebody


# Those that read nothing


async def grown_by_an_answer(server: LiveServer, speaker: Visitor, conv: str, pieces: int) -> int:
    """The most bytes that the server held more while it wrote a long one."""
    before = most = memory(server)
    await speaker.chat(Orders(frames=pieces).encode(), conv)
    running = True
    while running:
        await asyncio.sleep(0.1)
        most = max(most, memory(server))
        told = await speaker.get("/api/conversations")
        [running] = [each["running"] for each in told if each["conv_id"] == conv]
    return most - before


async def held_for_each(
    server: LiveServer, speaker: Visitor, stuck: int, pieces: int, *, ponged: bool
) -> float:
    """Bytes that the server held for each of those that were sent an answer and read none of it."""
    alone = [await grown_by_an_answer(server, speaker, str(uuid4()), pieces) for _ in range(2)]
    conv = str(uuid4())
    async with AsyncExitStack() as stack:
        for _ in range(stuck):
            wire = await stack.enter_async_context(hostile(speaker, conv))
            if ponged:
                await wire.send(frame(ANSWERS_PING))
        grown = await grown_by_an_answer(server, speaker, conv, pieces)
        await until_sockets(server, 0, within=GIVEN_UP_SECONDS)
    return (grown - min(alone)) / stuck


@pytest.mark.parametrize("ponged", [False, True], ids=["never ponged", "has ponged"])
async def test_one_that_never_reads_costs_little_until_it_is_given_up(
    own: LiveServer, kind: str, cora: Visitor, ponged: bool
):
    if kind == "daphne" and not ponged:  # it may be one of those that know no pong
        held = await held_for_each(own, cora, 1, LONG * 5, ponged=False)
        assert held <= 16 * MiB
    else:
        held = await held_for_each(own, cora, STUCK, LONG, ponged=ponged)
        assert held <= 2 * MiB
    print(f"{kind}: {held / MiB:.2f} MiB for each")
    await cora.hear(ANSWER, str(uuid4()))


# Thousands


async def arrive(stack: AsyncExitStack, speaker: Visitor, conversations: list[str]) -> list[Wire]:
    """An open socket in each of the conversations, greeted."""
    free = asyncio.Semaphore(AT_ONCE)

    async def arrives(conv: str) -> Wire:
        while True:
            try:
                async with free:
                    wire = await stack.enter_async_context(hostile(speaker, conv))
                    for _ in range(2):
                        await wire.message()
                    return wire
            except TURNED_AWAY:
                await asyncio.sleep(1)

    return await together(map(arrives, conversations))


async def next_seq(wire: Wire) -> int:
    """The number of the stream's next frame, after answering pings."""
    while True:
        opcode, text = await wire.message()
        if opcode == PING:
            await wire.send(frame(text, opcode=PONG))
        elif STREAM_FRAME in text:
            return seq_of((opcode, text))
        elif opcode == CLOSE:
            raise ConnectionResetError("the server closed the socket")


async def together(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each comes to; where one fails, the others are ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
    return [task.result() for task in tasks]


async def test_a_storm_of_thousands_with_cursors_gets_all_it_missed(
    own: LiveServer, cora: Visitor, conv: str
):
    recorded = await cora.hear(ANSWER, conv)
    async with AsyncExitStack() as stack:
        there = await arrive(stack, cora, [conv] * SOCKETS)
        for wire in there:
            wire.drop()
        recorded += await cora.hear(ANSWER, conv)  # what all of them miss
    epoch, end = (await cora.get("/api/timeline", conv_id=conv))["epoch"], len(recorded)

    async def comes_back(seen: int) -> list[int]:
        """The numbers of the frames that came; as a page does, it tries again when turned away."""
        cursor = cursor_after(recorded, seen, epoch=epoch)
        while True:
            try:
                async with hostile(cora, conv, cursor=cursor) as wire:
                    _, hello = await wire.message()
                    if b'"resumed":false' in hello:
                        raise RuntimeError(f"the cursor {cursor} was not proved: {hello!r}")
                    return [await next_seq(wire) for _ in range(end - seen)]
            except TURNED_AWAY:
                await asyncio.sleep(1)

    seen = [number % end for number in range(SOCKETS)]
    began = time.monotonic()
    async with asyncio.timeout(BACK_SECONDS):
        got = await together(map(comes_back, seen))
    print(f"{SOCKETS} came back within {time.monotonic() - began:.0f} s")
    for first, numbers in zip(seen, got, strict=True):
        assert numbers == list(range(first + 1, end + 1))
    await until_sockets(own, 0, within=GIVEN_UP_SECONDS)
    await cora.hear(ANSWER, conv)


class Held(bench.client.Wire):
    """A socket that keeps to the protocol and shall hear nothing of the conversation."""

    strayed = False

    def data_received(self, data: bytes) -> None:
        self.strayed |= STREAM_FRAME in data
        super().data_received(data)


async def test_thousands_of_conversations_hear_each_its_own(
    own: LiveServer, kind: str, cora: Visitor
):
    before, free = memory(own), asyncio.Semaphore(AT_ONCE)

    async def arrives() -> Held:
        url = cora.socket_url(conv_id=str(uuid4())).replace("ws", "http", 1)
        async with free:
            wire = Held(url, cora.headers(), acknowledges=True)
            greeted = wire.count(2)
            await wire.open()
            await greeted
            return wire

    others = await together(arrives() for _ in range(SOCKETS))
    grown = memory(own) - before
    print(f"{kind}: {grown / SOCKETS / KiB:.0f} KiB for each")

    async def hears() -> None:
        conv = str(uuid4())
        async with cora.socket(conv) as socket:
            await socket.until("timeline.snapshot")
            inference = (await cora.chat(ANSWER, conv))["inference_id"]
            frames = await socket.until("inference.finished")
            assert {told["inference_id"] for told in frames if "seq" in told} == {inference}

    await together(hears() for _ in range(ASKED))
    assert not any(other.strayed for other in others)
    assert sum(other.lost for other in others) == 0
    assert grown <= SOCKETS * 64 * KiB
    for other in others:
        other.close()
    await until_sockets(own, 0, within=GIVEN_UP_SECONDS)
