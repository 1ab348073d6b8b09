"""Clients that mean harm or are broken: they get their end, and nobody else notices.

While each does what it does, a neighbour hears an answer: whole and in order (`Socket` checks each
frame), and not later than when nobody disturbs it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tests.client import Frame, Visitor, cursor_after, stranger
from tests.live import METRICS_TOKEN, LiveServer
from tests.metrics import Samples, scraped
from tests.wire import PING, Wire, connected, frame, handshake, opened

KiB = 1024
MiB = 1024 * KiB
PROMPT = "hello"
LATER = 3.0
"""A neighbour's answer may take so many times as long as undisturbed, and a second: other tests
run on the same machine."""
GONE_SECONDS = 30.0
FLOOD_SECONDS = 5.0
STORM = 40
HURRIED = 300
COMPLAINTS = ("Traceback", "Exception in", "was destroyed", "never retrieved", "took too long")
CONVERSATIONS = 60


async def metrics(server: LiveServer) -> Samples:
    async with stranger(server.url) as http:
        bearer = {"Authorization": f"Bearer {METRICS_TOKEN}"}
        return scraped((await http.get("/metrics", headers=bearer)).text)


async def closes(server: LiveServer, reason: str) -> float:
    return (await metrics(server))["webchat_socket_closes_total"][(reason,)]


async def until_sockets(server: LiveServer, most: float, *, within: float = GONE_SECONDS) -> None:
    """Returns when no more than so many sockets have a place."""
    await until_at_most(server, "webchat_sockets", most, within=within)


async def until_at_most(
    server: LiveServer, name: str, most: float, *, within: float = GONE_SECONDS
) -> None:
    async with asyncio.timeout(within):
        while (await metrics(server))[name][()] > most:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def memory(server: LiveServer) -> int:
    held: int = psutil.Process(server.process.pid).memory_info().rss
    return held


async def heard(visitor: Visitor) -> tuple[list[Frame], float]:
    """An answer in a conversation of its own, and what it took from its start to its end."""
    conv_id = str(uuid4())
    async with visitor.socket(conv_id) as socket:
        await socket.until("timeline.snapshot")
        began = time.monotonic()
        await visitor.chat(PROMPT, conv_id)
        frames = await socket.until("inference.finished")
        return frames, time.monotonic() - began


def kinds(frames: list[Frame]) -> list[str]:
    """The kinds of frames in order; how many deltas a text comes in is the moment's."""
    found = [frame["type"] for frame in frames]
    return [kind for place, kind in enumerate(found) if found[place - 1 : place] != [kind]]


@asynccontextmanager
async def nobody_notices(neighbour: Visitor) -> AsyncIterator[None]:
    """While the block runs, and it runs at least as long, a neighbour hears what it always does."""
    expected, alone = await heard(neighbour)
    answer = asyncio.create_task(heard(neighbour))
    try:
        yield
    finally:
        found, disturbed = await answer
    assert kinds(found) == kinds(expected)
    assert disturbed <= alone * LATER + 1


def seq_of(message: tuple[int, bytes]) -> int:
    _, text = message
    found: int = json.loads(text)["event"]["seq"]
    return found


def hostile(visitor: Visitor, conv_id: str, **query: str) -> AbstractAsyncContextManager[Wire]:
    url = visitor.socket_url(conv_id=conv_id, **query)
    return opened(url.replace("ws", "http", 1), visitor.headers())


async def test_one_that_never_reads_holds_up_nobody(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str
):
    before = memory(server)
    async with hostile(bert, conv), nobody_notices(anna):
        for _ in range(2):
            frames = await bert.hear("long 20000", conv)
            assert frames[-1]["data"]["status"] == "completed"
        grown = memory(server) - before

    # What it was sent waits on Daphne; beside it are the conversation, its log and its window.
    assert grown < 32 * MiB


async def test_one_that_reads_two_kilobytes_a_second_misses_nothing(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str
):
    async with hostile(bert, conv) as slow, nobody_notices(anna):
        await bert.chat("long 3000", conv)
        got = bytearray()
        for _ in range(3):
            got += await slow.reader.read(2048)
            await asyncio.sleep(1)
        pieces = [got]
        while b'"inference.finished"' not in b"".join(pieces[-2:]):
            pieces.append(bytearray(await slow.reader.read(65536)))

    text = b"".join(pieces)
    places = [text.find(b'"event":{"seq":%d,' % seq) for seq in range(1, 12)]
    assert -1 not in places, "a frame is missing"
    assert places == sorted(places)


@pytest.mark.parametrize("cut", [1, 2, 5, 7, 12])
async def test_one_that_drops_in_mid_frame_leaves_nothing_behind(
    server: LiveServer, anna: Visitor, conv: str, cut: int
):
    before = (await metrics(server))["webchat_sockets"][()]
    whole = frame(b'{"type":"ws.ping"}' * 10)
    async with AsyncExitStack() as stack:
        for _ in range(10):
            wire = await stack.enter_async_context(hostile(anna, conv))
            await wire.send(whole[:cut])
    await until_sockets(server, before)


async def test_those_that_are_gone_before_they_are_let_in_leave_nothing_behind(
    server: LiveServer, anna: Visitor, conv: str
):
    url = anna.socket_url(conv_id=conv).replace("ws", "http", 1)
    async with anna.socket(conv) as stayed:
        await stayed.until("timeline.snapshot")
        before = await metrics(server)
        for late in range(HURRIED):
            async with connected(url) as wire:
                await wire.send(handshake(url, anna.headers()))
                for _ in range(late % 5):  # from not read yet to nearly let in
                    await asyncio.sleep(0)
        await until_sockets(server, before["webchat_sockets"][()])
        # Tasks of requests come and go; those of hundreds of sockets would stay.
        await until_at_most(server, "webchat_tasks", before["webchat_tasks"][()] + 20)
        await stayed.send({"type": "ws.ping"})
        assert (await stayed.until("ws.pong"))[-1]["type"] == "ws.pong"

    assert [word for word in COMPLAINTS if word in server.log] == [], server.log


async def test_a_flood_of_commands_ends_its_socket_alone(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str
):
    refused = await closes(server, "rate")
    flood = frame(b'{"type":"ws.ping"}') * 1000
    async with nobody_notices(anna), hostile(bert, conv) as wire:
        end = asyncio.create_task(wire.close_code())
        with suppress(ConnectionError):  # it is cut off while it goes on
            for _ in range(10):
                await wire.send(flood)
        assert await end in (4013, None)  # a reset may overtake the word

    assert await closes(server, "rate") == refused + 1


@pytest.mark.slow
async def test_ten_thousand_commands_a_second_again_and_again_disturb_nobody(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str
):
    before, offered = memory(server), 0
    flood = frame(b'{"type":"ws.ping"}') * 10_000
    began = time.monotonic()
    async with nobody_notices(anna):
        while time.monotonic() < began + FLOOD_SECONDS:
            async with hostile(bert, conv) as wire:
                offered += 10_000
                with suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(0.5):
                        await wire.send(flood)
                        await wire.close_code()
        lasted = time.monotonic() - began

    assert offered / lasted > 10_000
    assert memory(server) - before < 16 * MiB


@pytest.mark.slow
async def test_one_that_answers_no_ping_is_dropped(server: LiveServer, anna: Visitor, conv: str):
    async with hostile(anna, conv) as wire, asyncio.timeout(90):
        await wire.close_code()


async def test_a_storm_of_sockets_with_cursors_gets_all_it_missed(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str
):
    recorded = await bert.hear("long 120", conv)
    end = len(recorded)
    async with bert.socket(conv) as socket:
        await socket.until("timeline.snapshot")

    async def comes_back(seen: int) -> list[int]:
        """The numbers of the frames that came; as a page does, it tries again when turned away."""
        cursor = cursor_after(recorded, seen, epoch=socket.epoch)
        while True:
            try:
                async with hostile(bert, conv, cursor=cursor) as wire:
                    await wire.message()
                    return [seq_of(await wire.message()) for _ in range(end - seen)]
            except (ConnectionError, asyncio.IncompleteReadError, AssertionError):
                await asyncio.sleep(1)

    missed = [number % end for number in range(STORM)]
    async with nobody_notices(anna):
        got = await asyncio.gather(*map(comes_back, missed))
    assert got == [list(range(seen + 1, end + 1)) for seen in missed]


async def test_many_conversations_cost_little(server: LiveServer, anna: Visitor, bert: Visitor):
    before = memory(server)
    free = asyncio.Semaphore(20)

    async def looks_in() -> None:
        async with free, hostile(bert, str(uuid4())) as wire:
            await wire.message()

    async with nobody_notices(anna):
        await asyncio.gather(*(looks_in() for _ in range(CONVERSATIONS)))

    assert memory(server) - before < 8 * MiB + CONVERSATIONS * 32 * 1024


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_hundred_megabytes_that_come_again_and_again_are_bounded(
    server: LiveServer, bert: Visitor, conv: str
):
    before, sent = memory(server), 0
    unit = frame(b'{"type":"ws.none","padding":"' + b"x" * 60_000 + b'"}')
    while sent < 100 * MiB:
        async with hostile(bert, conv) as wire:
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(5):
                    while sent < 100 * MiB:
                        await wire.send(unit)
                        sent += len(unit)

    assert memory(server) - before < 16 * MiB


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(frame(b'{"type":"ws.none","padding":"' + b"x" * 60_000 + b'"}'), id="large"),
        pytest.param(frame(opcode=PING) * 10_000, id="control frames"),
        pytest.param(frame(b"x", fin=False) + frame(opcode=0, fin=False) * 10_000, id="fragments"),
    ],
)
async def test_a_flood_of_bytes_is_bounded(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str, unit: bytes
):
    before = memory(server)
    async with nobody_notices(anna), hostile(bert, conv) as wire:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1.5):  # as much as the server takes in this time
                for _ in range(8 * MiB // len(unit)):
                    await wire.send(unit)
        grown = memory(server) - before

    assert grown < 16 * MiB


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frame(claims=1 << 62), id="claims an exabyte"),
        pytest.param(frame(b"x" * (64 * 1024 + 1)), id="over 64 KiB"),
        pytest.param(
            frame(b"x" * 60_000, fin=False) + frame(b"x" * 60_000, opcode=0), id="in two parts"
        ),
        pytest.param(frame(b"ping", reserved=4), id="a reserved bit"),
        pytest.param(frame(b"ping", opcode=3), id="no such opcode"),
        pytest.param(frame(b"ping", masked=False), id="no mask"),
        pytest.param(frame(b"\xff\xfe"), id="no UTF-8"),
        pytest.param(frame(b"x", opcode=0), id="a part of nothing"),
        pytest.param(frame(b"x" * 126, opcode=PING), id="a long ping"),
        pytest.param(frame(b"\x00", opcode=8), id="half a close code"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01", id="another protocol"),
    ],
)
async def test_what_is_no_frame_of_ours_ends_its_socket_alone(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str, sent: bytes
):
    async with anna.socket(conv) as neighbour:
        await neighbour.until("timeline.snapshot")
        async with hostile(bert, str(uuid4())) as wire:
            await wire.send(sent)
            async with asyncio.timeout(GONE_SECONDS):
                code = await wire.close_code()
        await neighbour.send("ping")
        assert (await neighbour.frame())["type"] == "ws.pong"

    assert code in (None, 1002, 1007, 1009)
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("changed", "statuses"),
    [
        ({"Sec_WebSocket_Version": "12"}, {400, 426}),
        ({"Sec_WebSocket_Version": None}, {400, 426}),
        ({"Sec_WebSocket_Key": None}, {400}),
        ({"Sec_WebSocket_Key": "short"}, {400}),
        ({"Upgrade": None}, {400, 404, 426}),
        ({"Upgrade": "websocket2"}, {400, 404, 426}),
        ({"Connection": "close"}, {400, 404, 426}),
    ],
    ids=str,
)
async def test_a_wrong_handshake_is_refused_in_order(
    server: LiveServer, anna: Visitor, conv: str, changed: dict[str, Any], statuses: set[int]
):
    url = anna.socket_url(conv_id=conv).replace("ws", "http", 1)
    async with connected(url) as wire, asyncio.timeout(GONE_SECONDS):
        await wire.send(handshake(url, anna.headers(), **changed))
        answer = await wire.reader.readline()

    assert int(answer.split()[1]) in statuses
    assert "Traceback" not in server.log


async def test_compression_is_not_agreed_to(server: LiveServer, anna: Visitor, conv: str):
    url = anna.socket_url(conv_id=conv).replace("ws", "http", 1)
    asked = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}
    async with connected(url) as wire, asyncio.timeout(GONE_SECONDS):
        await wire.send(handshake(url, anna.headers(), **asked))
        answer = await wire.reader.readuntil(b"\r\n\r\n")

    assert b" 101 " in answer
    assert b"extensions" not in answer.lower()


@pytest.mark.parametrize("byte", [b"\x00", b"\x0b"])
async def test_a_header_with_a_control_character_reaches_nobody(
    server: LiveServer, anna: Visitor, byte: bytes
):
    request = b"GET / HTTP/1.1\r\nHost: %s\r\nX-Note: a%sb\r\n\r\n"
    async with connected(anna.url + "/?") as wire, asyncio.timeout(GONE_SECONDS):
        await wire.send(request % (anna.url.removeprefix("http://").encode(), byte))
        answer = await wire.reader.readline()

    assert answer.split()[1:2] == [b"400"], answer
    assert "Traceback" not in server.log
