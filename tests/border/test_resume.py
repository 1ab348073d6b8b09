"""Coming back with a cursor, and what is wrong with one: PROTOCOL §1 and §4."""

from __future__ import annotations

import asyncio

import pytest

from tests.client import Frame, Visitor, cursor_after

QUICK = "long 30"


async def test_from_every_position_exactly_the_frames_after_it_come(anna: Visitor, conv: str):
    recorded = await anna.hear(QUICK, conv)
    async with anna.socket(conv) as socket:
        [hello, _] = await socket.until("timeline.snapshot")
    epoch, head = hello["data"]["epoch"], len(recorded)

    for seen in range(head + 1):
        cursor = cursor_after(recorded, seen, epoch=epoch)
        async with anna.socket(conv, cursor=cursor) as socket:
            hello = await socket.frame()
            assert hello["data"]["resumed"] is True
            assert hello["data"]["missed"] == head - seen
            assert hello["data"]["headSeq"] == head
            assert hello["data"]["cursor"] == cursor_after(recorded, head, epoch=epoch)
            missed = [await socket.frame() for _ in range(head - seen)]
            assert missed == recorded[seen:]
            await socket.send({"type": "ws.ping", "nonce": seen})
            assert (await socket.frame())["type"] == "ws.pong", "nothing else was sent"


async def test_the_frames_after_a_cursor_go_over_into_the_live_ones(anna: Visitor, conv: str):
    async with anna.socket(conv) as stayed:
        await stayed.until("timeline.snapshot")
        await anna.chat("hello", conv)
        first = await stayed.until("llm.start")
        async with anna.socket(conv, cursor=cursor_after(first, 2, epoch=stayed.epoch)) as resumed:
            hello = await resumed.frame()
            later = await resumed.until("inference.finished")
        rest = await stayed.until("inference.finished")

    assert hello["data"]["resumed"] is True
    assert hello["data"]["running"] is True
    assert later == [*first, *rest][2:]


async def test_a_cursor_of_an_untouched_conversation_resumes(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        cursor = socket.cursor
    async with anna.socket(conv, cursor=cursor) as socket:
        hello = await socket.frame()

    assert cursor.endswith(".0")
    assert (hello["data"]["resumed"], hello["data"]["missed"]) == (True, 0)


@pytest.mark.parametrize(
    ("shift", "seq", "stream_id", "reason"),
    [
        pytest.param(1, 1, "", "epoch", id="another epoch"),
        pytest.param(-1, 10**15, "", "epoch", id="another epoch, ahead"),
        pytest.param(0, 3, "", "ahead", id="one ahead"),
        pytest.param(0, 10**15, "", "ahead", id="far ahead"),
        pytest.param(0, 1, ".1764000000123-0", "diverged", id="a stream id where there is none"),
        pytest.param(0, 0, ".0-0", "diverged", id="the first stream id where there is none"),
    ],
)
async def test_a_cursor_that_cannot_be_proved_gets_a_snapshot_that_says_why(
    anna: Visitor, conv: str, shift: int, seq: int, stream_id: str, reason: str
):
    await anna.chat("hang", conv)
    async with anna.socket(conv) as socket:
        [_, first] = await socket.until("timeline.snapshot")
    cursor = f"{socket.epoch + shift}.{seq}{stream_id}"
    async with anna.socket(conv, cursor=cursor) as socket:
        hello, snapshot = await socket.frame(), await socket.frame()
        await anna.post("/api/chat/cancel", {"conv_id": conv})
        await socket.until("inference.finished")

    assert hello["data"]["resumed"] is False
    assert hello["data"]["missed"] == 0
    assert snapshot["type"] == "timeline.snapshot"
    assert snapshot["data"]["reason"] == reason
    assert snapshot["data"]["entities"] == first["data"]["entities"]


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "17", "17.", ".1", "17.1.", "17.1.2", "17.1.2-", "17.1.-2", "17.1.1-2-3"),
        *("-17.1", "17.-1", "+17.1", " 17.1", "17.1 ", "17.1\n", "17,1", "0x17.1", "１７.１"),
        *("12345678901234567.1", "1.12345678901234567", "1.1.123456789012345678901-0"),
    ],
)
async def test_what_is_no_cursor_is_told_so_and_closed_for_good(
    anna: Visitor, conv: str, cursor: str
):
    async with anna.socket(conv, cursor=cursor) as socket:
        error = await socket.frame()
        assert_refusal(error, "bad_cursor")
        code = await socket.closed()

    assert code == 4513


@pytest.mark.parametrize(
    "conv_id", ["", "-a", ".a", ":a", "a" * 129, "a/b", "a b", "a?", "é", "a\n", "a\x00", "٣"]
)
async def test_what_is_no_conversations_id_is_told_so_and_closed_for_good(
    anna: Visitor, conv_id: str
):
    async with anna.socket(conv_id) as socket:
        error = await socket.frame()
        assert_refusal(error, "bad_conv_id")
        code = await socket.closed()

    assert code == 4513


async def test_a_socket_that_names_no_conversation_is_told_so(anna: Visitor):
    async with anna.connected(anna.socket_url()) as socket:
        error = await socket.frame()
        assert_refusal(error, "bad_conv_id")
        code = await socket.closed()

    assert code == 4513


@pytest.mark.parametrize("shape", ["0", "{}.A_b-c:d", "{}" + "x" * 92])
async def test_every_id_the_grammar_allows_is_taken(anna: Visitor, conv: str, shape: str):
    # A digit alone is no id of this test's own, but nobody else uses one of this length.
    conv_id = shape.format(conv) if "{}" in shape else conv.replace("-", "0")
    async with anna.socket(conv_id) as socket:
        hello = await socket.frame()

    assert hello["data"]["convId"] == conv_id


async def test_an_unknown_profile_is_told_with_the_known_ones(anna: Visitor, conv: str):
    async with anna.socket(conv, profile="agnet") as socket:
        error = await socket.frame()
        assert_refusal(error, "profile_not_found")
        code = await socket.closed()

    assert "agent, default" in error["data"]["message"]
    assert code == 4513


async def test_connecting_creates_the_conversation(anna: Visitor, conv: str):
    assert (await anna.http.get("/api/timeline", params={"conv_id": conv})).status_code == 404
    async with anna.socket(conv, profile="agent") as socket:
        hello = await socket.frame()
        [mine] = await anna.get("/api/conversations")

    assert hello["data"]["runtimeKey"] == "agent"
    assert (mine["conv_id"], mine["profile"], mine["head_seq"]) == (conv, "agent", 0)


async def test_a_refused_socket_creates_nothing(anna: Visitor, conv: str):
    for query in ({"cursor": "x"}, {"profile": "nobody"}):
        async with anna.socket(conv, **query) as socket:
            await socket.closed()

    assert (await anna.http.get("/api/timeline", params={"conv_id": conv})).status_code == 404
    assert await anna.get("/api/conversations") == []


async def test_many_sockets_resume_at_once(anna: Visitor, conv: str):
    recorded = await anna.hear(QUICK, conv)
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
    epoch = socket.epoch

    async def missed(seen: int) -> list[Frame]:
        cursor = cursor_after(recorded, seen, epoch=epoch)
        async with anna.socket(conv, cursor=cursor) as socket:
            await socket.frame()
            return await socket.until("inference.finished")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(missed(seen)) for seen in range(len(recorded))]

    assert [task.result() for task in tasks] == [recorded[seen:] for seen in range(len(recorded))]


def assert_refusal(frame: Frame, code: str) -> None:
    assert frame["type"] == "ws.error"
    assert set(frame) == {"type", "id", "data"}
    assert set(frame["data"]) == {"code", "message"}
    assert frame["data"]["code"] == code
    assert len(frame["data"]["message"]) > 20
