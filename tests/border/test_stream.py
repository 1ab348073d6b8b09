"""What one prompt sends over the socket: PROTOCOL §2, §3 and the first frames of §4."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any
from uuid import UUID

from tests.client import Frame, Visitor, cursor_after, text_of
from tests.live import LiveServer

QUICK = "long 30"

KEYS = {
    "chat.message": {"role", "content", "turnId", "idempotencyKey"},
    "inference.started": {"turnId", "profile", "model", "idempotencyKey"},
    "llm.thinking.start": {"role", "model"},
    "llm.thinking.delta": {"delta", "offset"},
    "llm.thinking.final": {"text", "status"},
    "llm.start": {"role", "model"},
    "llm.delta": {"delta", "offset"},
    "llm.final": {"text", "status"},
    "inference.finished": {"status", "usage", "durationMs"},
}


def kinds(frames: list[Frame]) -> list[str]:
    """The types in order, each run of one type once."""
    return [kind for kind, _ in groupby(frame["type"] for frame in frames)]


def only(frames: list[Frame], kind: str) -> Frame:
    [frame] = [frame for frame in frames if frame["type"] == kind]
    return frame


def is_uuid(text: str) -> bool:
    return UUID(text).version == 4 and str(UUID(text)) == text


async def test_a_prompts_frames_come_in_the_protocols_order(anna: Visitor, conv: str):
    frames = await anna.hear(QUICK, conv)

    assert kinds(frames) == list(KEYS)


async def test_each_frame_has_exactly_the_fields_of_its_type(
    server: LiveServer, anna: Visitor, conv: str
):
    frames = await anna.hear(QUICK, conv)

    for frame in frames:
        assert set(frame["data"]) == KEYS[frame["type"]], frame
        expected = {"type", "id", "seq", "inference_id", "turn_id", "data"}
        if frame["type"].endswith((".final", ".finished")):
            expected.add("metadata")
        if server.store:
            expected.add("stream_id")
        assert set(frame) == expected, frame


async def test_a_message_is_text_json_that_says_it_is_an_event(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("fail at once", conv)
        messages = [await socket.websocket.recv() for _ in range(3)]

    for message in messages:
        assert isinstance(message, str)
        assert set(json.loads(message)) == {"sem", "event"}


async def test_seq_is_dense_from_1_over_all_prompts_of_a_conversation(anna: Visitor, conv: str):
    frames = [*await anna.hear(QUICK, conv), *await anna.hear(QUICK, conv)]

    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))


async def test_every_frame_names_its_inference_and_its_turn(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        answer = await anna.chat(QUICK, conv)
        frames = await socket.until("inference.finished")

    assert {frame["inference_id"] for frame in frames} == {answer["inference_id"]}
    assert {frame["turn_id"] for frame in frames} == {answer["turn_id"]}


async def test_the_prompt_is_a_message_of_the_user(anna: Visitor, conv: str):
    prompt = "  long 30\n"
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        answer = await anna.chat(prompt, conv)
        [*_, message] = await socket.until("chat.message")

    assert is_uuid(message["id"])
    assert message["data"] == {
        "role": "user",
        "content": prompt,
        "turnId": answer["turn_id"],
        "idempotencyKey": answer["idempotency_key"],
    }


async def test_the_inference_says_what_it_runs_on(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        answer = await anna.chat("fail at once", conv)
        [*_, started] = await socket.until("inference.started")

    assert started["id"] == answer["inference_id"]
    assert started["data"] == {
        "turnId": answer["turn_id"],
        "profile": "default",
        "model": "demo",
        "idempotencyKey": answer["idempotency_key"],
    }


async def test_ids_are_new_for_each_prompt(anna: Visitor, conv: str):
    answers = [await anna.chat("fail at once", conv)]
    await until_free(anna, conv)
    answers.append(await anna.chat("fail at once", conv))

    for name in ("inference_id", "turn_id", "idempotency_key"):
        assert len({answer[name] for answer in answers}) == 2
        assert all(is_uuid(answer[name]) for answer in answers)


async def test_text_and_thinking_are_messages_of_their_own(anna: Visitor, conv: str):
    frames = await anna.hear(QUICK, conv)

    message = only(frames, "llm.start")["id"]
    text = [frame for frame in frames if frame["type"] in ("llm.delta", "llm.final")]
    thinking = [frame for frame in frames if frame["type"].startswith("llm.thinking.")]
    assert {frame["id"] for frame in text} == {message}
    assert {frame["id"] for frame in thinking} == {f"{message}:thinking"}
    assert only(frames, "llm.start")["data"] == {"role": "assistant", "model": "demo"}
    assert only(frames, "llm.thinking.start")["data"] == {"role": "thinking", "model": "demo"}


async def test_no_frame_repeats_text_and_offsets_count_code_points(anna: Visitor, conv: str):
    frames = await anna.hear("🦊 größer 𝔘", conv)

    for prefix in ("llm", "llm.thinking"):
        sent = ""
        for frame in frames:
            if frame["type"] == f"{prefix}.delta":
                assert frame["data"]["offset"] == len(sent)
                assert frame["data"]["delta"]
                sent += frame["data"]["delta"]
        assert only(frames, f"{prefix}.final")["data"] == {"text": sent, "status": "completed"}
    assert "🦊 größer 𝔘" in text_of(frames)


async def test_the_ends_carry_model_reason_duration_and_usage(anna: Visitor, conv: str):
    frames = await anna.hear("hello", conv)

    words = len(f"{text_of(frames, 'llm.thinking.delta')} {text_of(frames)}".split())
    final, finished = only(frames, "llm.final"), only(frames, "inference.finished")
    usage = final["metadata"]["usage"]
    assert usage == {
        "inputTokens": usage["inputTokens"],
        "outputTokens": words,
        "cachedTokens": 0,
    }
    assert usage["inputTokens"] > 0
    for frame in (final, finished):
        assert set(frame["metadata"]) == {"model", "stopReason", "durationMs", "usage"}
        assert frame["metadata"]["model"] == "demo"
        assert frame["metadata"]["stopReason"] == "stop"
        assert frame["metadata"]["usage"] == usage
    assert finished["id"] == finished["inference_id"]
    assert finished["data"]["status"] == "completed"
    assert finished["data"]["usage"] == usage
    assert 0 < final["metadata"]["durationMs"] <= finished["data"]["durationMs"] < 60_000
    assert finished["metadata"]["durationMs"] == finished["data"]["durationMs"]


async def test_the_first_frame_says_hello_with_every_field(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        hello = await socket.frame()

    assert set(hello) == {"type", "id", "data"}
    assert hello["type"] == "ws.hello"
    assert hello["id"] == conv
    said: dict[str, Any] = hello["data"]
    epoch, server_time = said.pop("epoch"), said.pop("serverTime")
    assert 1_700_000_000_000 < epoch <= server_time < 2**53
    assert said == {
        "convId": conv,
        "sessionId": conv,
        "runtimeKey": "default",
        "protocol": 1,
        "headSeq": 0,
        "cursor": f"{epoch}.0",
        "resumed": False,
        "missed": 0,
        "running": False,
        "inferenceId": None,
        "queueDepth": 0,
        "heartbeatMs": 25000,
    }


async def test_hello_and_snapshot_tell_a_running_inference(anna: Visitor, conv: str):
    answer = await anna.chat("hang", conv)
    async with anna.socket(conv) as socket:
        hello, snapshot = await socket.frame(), await socket.frame()
        await anna.post("/api/chat/cancel", {"conv_id": conv})
    async with anna.socket(conv, cursor=f"{hello['data']['epoch']}.0") as socket:
        frames = await socket.until("inference.started")

    assert hello["data"]["running"] is True
    assert hello["data"]["inferenceId"] == answer["inference_id"]
    assert hello["data"]["headSeq"] == 2
    assert hello["data"]["cursor"] == cursor_after(frames[1:], 2, epoch=hello["data"]["epoch"])
    assert snapshot["data"]["running"] is True
    [_, inference] = snapshot["data"]["entities"]
    assert inference["props"]["status"] == "running"


async def test_without_a_cursor_a_snapshot_follows_with_every_field(anna: Visitor, conv: str):
    frames = await anna.hear(QUICK, conv)
    async with anna.socket(conv) as socket:
        hello, snapshot = await socket.frame(), await socket.frame()

    assert set(snapshot) == {"type", "id", "data"}
    assert snapshot["type"] == "timeline.snapshot"
    said: dict[str, Any] = snapshot["data"]
    entities, server_time = said.pop("entities"), said.pop("serverTimeMs")
    assert said == {
        "convId": conv,
        "epoch": hello["data"]["epoch"],
        "version": frames[-1]["seq"],
        "cursor": hello["data"]["cursor"],
        "running": False,
        "queueDepth": 0,
        "queue": [],
        "reason": "first",
    }
    assert [(entity["kind"], entity["props"].get("role")) for entity in entities] == [
        ("message", "user"),
        ("inference", None),
        ("message", "thinking"),
        ("message", "assistant"),
    ]
    for entity in entities:
        assert set(entity) == {
            *("id", "kind", "createdAtMs", "updatedAtMs", "createdSeq", "updatedSeq", "props")
        }
        assert entity["createdAtMs"] <= entity["updatedAtMs"] <= server_time
        own = [frame["seq"] for frame in frames if frame["id"] == entity["id"]]
        assert (entity["createdSeq"], entity["updatedSeq"]) == (own[0], own[-1])


async def test_a_frame_may_be_larger_than_what_a_client_may_send(anna: Visitor, conv: str):
    frames = await anna.hear("long 9000", conv)
    [text] = [frame["data"]["text"] for frame in frames if frame["type"] == "llm.final"]
    assert len(text) > 64 * 1024
    async with anna.socket(conv) as socket:
        snapshot = (await socket.until("timeline.snapshot"))[-1]["data"]
        await socket.send("ping")
        assert (await socket.frame())["type"] == "ws.pong"
    assert snapshot["entities"][-1]["props"]["content"] == text


async def until_free(visitor: Visitor, conv: str) -> None:
    """Returns when the conversation's inference has ended."""
    async with visitor.socket(conv) as socket:
        [*_, snapshot] = await socket.until("timeline.snapshot")
        if snapshot["data"]["running"]:
            await socket.until("inference.finished")
