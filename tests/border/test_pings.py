"""What a client may say over its socket, and what becomes of what it may not: PROTOCOL §4."""

from __future__ import annotations

import json

import pytest

from tests.client import Frame, Socket, Visitor

WELL_FORMED = [
    {},
    {"type": "ws.unknown"},
    {"type": "ws.pong", "seq": 10**9},
    {"type": "ws.pong", "seq": "much"},
    {"type": "ws.pong"},
    {"type": 7},
    {"sem": True, "event": {"type": "chat.message", "data": {}}},
    {"sem": True, "event": {}},
    {"sem": False},
]
MALFORMED = [
    *("", "pin", "pingping", "ping ping", "{", "[]", '"ping"', "17", "null", "true", "NaN"),
    *('{"type":"ws.ping"', '{"type":"ws.ping"} x', "{'type':'ws.ping'}", '{"sem":true}'),
    '{"sem":true,"event":"ws.ping"}',
    "[" * 20_000,
]


async def answer(socket: Socket, message: object) -> Frame:
    await socket.send(message)
    return await socket.frame()


@pytest.mark.parametrize(
    "message",
    [
        *("ping", "PING", "Ping", "  ping\n", "\tpInG "),
        *({"type": "ws.ping"}, {"type": "WS.Ping"}, {"type": " ws.PING "}, {"type": "ping"}),
        *({"sem": True, "event": {"type": "ws.ping"}}, {"sem": True, "event": {"type": "WS.PING"}}),
        ' { "type" : "ws.ping" , "unknown" : [1] } ',
    ],
    ids=str,
)
async def test_each_form_of_ping_is_answered(anna: Visitor, conv: str, message: object):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        pong = await answer(socket, message)

    assert set(pong) == {"type", "id", "data"}
    assert pong["type"] == "ws.pong"
    assert set(pong["data"]) == {"convId", "serverTime"}
    assert pong["data"]["convId"] == conv
    assert pong["data"]["serverTime"] > 1_700_000_000_000


@pytest.mark.parametrize("nonce", ["a", "", "ü🦊", 0, -5, 2**53 - 1])
async def test_a_pings_nonce_comes_back(anna: Visitor, conv: str, nonce: object):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        for ping in (
            {"type": "ws.ping", "nonce": nonce},
            {"sem": True, "event": {"type": "ws.ping", "nonce": nonce}},
        ):
            assert (await answer(socket, ping))["data"]["nonce"] == nonce


async def test_a_pong_goes_to_the_socket_that_asked_alone(anna: Visitor, conv: str):
    async with anna.socket(conv) as one, anna.socket(conv) as two:
        for tab in (one, two):
            await tab.until("timeline.snapshot")
        assert (await answer(one, {"type": "ws.ping", "nonce": 1}))["data"]["nonce"] == 1
        assert (await answer(two, {"type": "ws.ping", "nonce": 2}))["data"]["nonce"] == 2


async def test_pings_are_answered_while_an_answer_streams(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("hello", conv)
        await socket.until("llm.delta")
        await socket.send("ping")
        between = await socket.until("ws.pong")
        await socket.until("inference.finished")

    assert "inference.finished" not in [frame["type"] for frame in between]


async def test_well_formed_messages_that_mean_nothing_are_ignored(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        for message in WELL_FORMED:
            await socket.send(message)
        assert (await answer(socket, "ping"))["type"] == "ws.pong"


@pytest.mark.parametrize("message", [*MALFORMED, b"ping", b"\xff\x00"], ids=lambda m: repr(m)[:30])
async def test_a_malformed_message_gets_one_error_and_the_socket_lives(
    anna: Visitor, conv: str, message: str | bytes
):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await socket.websocket.send(message)
        error = await socket.frame()
        pong = await answer(socket, "ping")

    assert error["type"] == "ws.error"
    assert set(error["data"]) == {"code", "message"}
    assert error["data"]["code"] == "bad_frame"
    assert len(error["data"]["message"]) > 20
    assert pong["type"] == "ws.pong"


@pytest.mark.parametrize("message", ["nonsense", b"binary"])
async def test_the_fifth_malformed_message_closes_its_socket_alone(
    anna: Visitor, conv: str, message: str | bytes
):
    async with anna.socket(conv) as good, anna.socket(conv) as bad:
        for tab in (good, bad):
            await tab.until("timeline.snapshot")
        for _ in range(4):
            await bad.websocket.send(message)
            assert (await bad.frame())["data"]["code"] == "bad_frame"
        assert (await answer(bad, "ping"))["type"] == "ws.pong"
        await bad.websocket.send(message)
        fifth = await bad.frame()
        code = await bad.closed()
        assert (await answer(good, "ping"))["type"] == "ws.pong"

    assert fifth["data"]["code"] == "bad_frame"
    assert code == 4513


async def test_a_message_of_64_kib_is_read(anna: Visitor, conv: str):
    bare = json.dumps({"type": "ws.ping", "padding": ""})
    largest = json.dumps({"type": "ws.ping", "padding": "x" * (64 * 1024 - len(bare))})
    assert len(largest) == 64 * 1024
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        pong = await answer(socket, largest)

    assert pong["type"] == "ws.pong"


@pytest.mark.parametrize("message", ["x" * (64 * 1024 + 1), "🦊" * (16 * 1024 + 1), b"x" * 200_000])
async def test_a_message_over_64_kib_closes_its_socket_alone(
    anna: Visitor, conv: str, message: str | bytes
):
    async with anna.socket(conv) as good, anna.socket(conv) as bad:
        for tab in (good, bad):
            await tab.until("timeline.snapshot")
        await bad.websocket.send(message)
        code = await bad.closed()
        assert (await answer(good, "ping"))["type"] == "ws.pong"

    assert code in (1009, 1006)
