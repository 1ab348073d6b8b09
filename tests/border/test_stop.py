"""Stop means stop, a failure is told in a sentence, and the slot is free afterwards."""

from __future__ import annotations

import asyncio
from time import monotonic
from uuid import uuid4

import httpx
import pytest

from tests.client import Frame, Visitor, text_of


async def cancel(visitor: Visitor, conv: str, **fields: object) -> httpx.Response:
    return await visitor.post("/api/chat/cancel", {"conv_id": conv, **fields})


def only(frames: list[Frame], kind: str) -> Frame:
    [frame] = [frame for frame in frames if frame["type"] == kind]
    return frame


async def test_stop_before_the_first_word(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        started = await anna.chat("hang", conv)
        await socket.until("inference.started")
        asked = monotonic()
        answer = await cancel(anna, conv)
        frames = await socket.until("inference.finished")
        took = monotonic() - asked

    assert answer.status_code == 200
    assert answer.json() == {"cancelled": True, "inference_id": started["inference_id"]}
    assert [frame["type"] for frame in frames] == ["inference.finished"]
    assert frames[0]["data"]["status"] == "cancelled"
    assert frames[0]["metadata"]["stopReason"] == "cancelled"
    assert "usage" not in frames[0]["data"]
    assert took < 1


async def test_stop_in_the_middle_keeps_the_partial_text_and_closes_in_order(
    anna: Visitor, conv: str
):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("slow 30", conv)
        before = await socket.until("llm.delta")
        asked = monotonic()
        await cancel(anna, conv)
        frames = await socket.until("inference.finished")
        took = monotonic() - asked
        await socket.send("ping")
        after = await socket.frame()

    final = only(frames, "llm.final")
    assert [frame["type"] for frame in frames[-2:]] == ["llm.final", "inference.finished"]
    assert final["data"] == {"text": text_of([*before, *frames]), "status": "stopped"}
    assert final["data"]["text"].startswith("Counting: 1 ")
    assert final["metadata"]["stopReason"] == "cancelled"
    assert frames[-1]["data"]["status"] == "cancelled"
    assert took < 1
    assert after["type"] == "ws.pong", "nothing comes after the end"


async def test_stop_while_it_thinks_closes_the_thinking(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("x " * 50, conv)  # it thinks about each word
        await socket.until("llm.thinking.delta")
        await cancel(anna, conv)
        frames = await socket.until("inference.finished")

    assert [frame["type"] for frame in frames[-2:]] == ["llm.thinking.final", "inference.finished"]
    assert frames[-2]["data"]["status"] == "stopped"
    assert "llm.start" not in [frame["type"] for frame in frames]


async def test_the_partial_text_is_in_the_timeline_and_in_the_models_history(
    anna: Visitor, conv: str
):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("slow 30", conv)
        await socket.until("llm.delta")
        await cancel(anna, conv)
        await socket.until("inference.finished")
        entities = (await anna.get("/api/timeline", conv_id=conv))["entities"]
        await anna.chat("history", conv)
        told = text_of(await socket.until("inference.finished"))

    assert entities[1]["props"]["status"] == "cancelled"
    assert entities[-1]["props"]["status"] == "stopped"
    assert entities[-1]["props"]["streaming"] is False
    partial = entities[-1]["props"]["content"]
    assert partial.startswith("Counting: 1 ")
    assert "1. slow 30" in told
    assert f"I answered with {len(partial.split())} words" in told


async def test_stop_may_be_asked_again_until_the_end_is_there(anna: Visitor, conv: str):
    started = await anna.chat("hang", conv)
    answers = await asyncio.gather(*(cancel(anna, conv) for _ in range(5)))
    late = await cancel(anna, conv)

    taken = [answer for answer in answers if answer.status_code == 200]
    assert taken
    for answer in taken:
        assert answer.json() == {"cancelled": True, "inference_id": started["inference_id"]}
    for answer in (answer for answer in answers if answer not in taken):
        assert answer.json()["code"] == "no_active_inference"
    assert late.status_code in (200, 409)


async def test_stop_of_another_inference_stops_nothing(anna: Visitor, conv: str):
    started = await anna.chat("hang", conv)
    for other in (str(uuid4()), "", "x"):
        answer = await cancel(anna, conv, inference_id=other)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_active_inference")
    async with anna.socket(conv) as socket:
        hello = await socket.frame()
        assert hello["data"]["running"] is True
        answer = await cancel(anna, conv, inference_id=started["inference_id"])
        await socket.until("inference.finished")

    assert answer.status_code == 200


async def test_stop_after_the_end_is_a_conflict(anna: Visitor, conv: str):
    frames = await anna.hear("fail at once", conv)
    for fields in ({}, {"inference_id": frames[-1]["id"]}):
        answer = await cancel(anna, conv, **fields)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_active_inference")


async def test_stop_in_a_conversation_without_prompts_is_a_conflict(anna: Visitor, conv: str):
    async with anna.socket(conv):
        answer = await cancel(anna, conv)

    assert (answer.status_code, answer.json()["code"]) == (409, "no_active_inference")


async def test_stop_works_from_a_page_without_scripts(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("hang", conv)
        token = {"csrfmiddlewaretoken": anna.http.cookies["csrftoken"]}
        answer = await anna.http.post(f"/c/{conv}/", data={"stop": "1", **token})
        frames = await socket.until("inference.finished")

    assert answer.headers["location"] == f"/c/{conv}/"
    assert frames[-1]["data"]["status"] == "cancelled"


async def test_another_tab_and_one_that_came_back_see_the_same_end(anna: Visitor, conv: str):
    async with anna.socket(conv) as one, anna.socket(conv) as two:
        for tab in (one, two):
            await tab.until("timeline.snapshot")
        await anna.chat("slow 30", conv)
        await one.until("llm.delta")
        one.drop()
        await cancel(anna, conv)
        stayed = await two.until("inference.finished")
        async with anna.socket(conv, cursor=one.cursor) as back:
            await back.frame()
            returned = await back.until("inference.finished")

    assert returned == stayed[-len(returned) :]
    assert returned[-1]["data"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("prompt", "spoken"), [("fail", "I begin as always"), ("fail at once", "")]
)
async def test_a_failure_is_told_in_one_sentence(
    anna: Visitor, conv: str, prompt: str, spoken: str
):
    frames = await anna.hear(prompt, conv)

    finished = frames[-1]
    assert finished["data"]["status"] == "failed"
    assert finished["metadata"]["stopReason"] == "error"
    assert finished["data"]["error"].startswith("The demo agent failed")
    assert "\n" not in finished["data"]["error"]
    assert "Traceback" not in finished["data"]["error"]
    if spoken:
        final = only(frames, "llm.final")
        assert final["data"]["status"] == "failed"
        assert final["data"]["text"].startswith(spoken)
        assert frames[-2] == final
    else:
        assert [frame["type"] for frame in frames[2:]] == ["inference.finished"]


async def test_a_prompt_while_one_is_running_is_a_conflict_and_changes_nothing(
    anna: Visitor, conv: str
):
    started = await anna.chat("hang", conv)
    before = await anna.get("/api/timeline", conv_id=conv)
    answer = await anna.post("/chat", {"prompt": "hello", "conv_id": conv, "policy": "reject"})
    after = await anna.get("/api/timeline", conv_id=conv)
    await cancel(anna, conv, inference_id=started["inference_id"])

    assert (answer.status_code, answer.json()["code"]) == (409, "run_in_progress")
    assert after["version"] == before["version"] == 2
    assert after["entities"] == before["entities"]


@pytest.mark.parametrize("prompt", ["hang", "fail", "fail at once", "long 30"])
async def test_the_slot_is_free_after_every_kind_of_end(anna: Visitor, conv: str, prompt: str):
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        first = await anna.chat(prompt, conv)
        if prompt == "hang":
            await cancel(anna, conv)
        await socket.until("inference.finished")
        second = await anna.chat("fail at once", conv)
        frames = await socket.until("inference.finished")

    assert second["inference_id"] != first["inference_id"]
    assert only(frames, "inference.started")["id"] == second["inference_id"]


async def test_of_prompts_sent_at_once_one_is_taken(anna: Visitor, conv: str):
    sent = [{"prompt": "hang", "conv_id": conv, "policy": "reject"} for _ in range(6)]
    answers = await asyncio.gather(*(anna.post("/chat", body) for body in sent))
    entities = (await anna.get("/api/timeline", conv_id=conv))["entities"]
    await cancel(anna, conv)

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    assert len(entities) == 2


async def test_the_answer_of_a_prompt_in_full(anna: Visitor, conv: str):
    answer = await anna.post(
        "/chat", {"prompt": "fail at once", "conv_id": conv}, Idempotency_Key="key-1"
    )
    told = answer.json()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert told == {
        "status": "started",
        "conv_id": conv,
        "session_id": conv,
        "run_id": conv,
        "inference_id": told["inference_id"],
        "turn_id": told["turn_id"],
        "idempotency_key": "key-1",
    }


async def test_its_first_frames_are_in_the_log_when_the_prompt_is_answered(
    anna: Visitor, conv: str
):
    started = await anna.chat("hang", conv)
    snapshot = await anna.get("/api/timeline", conv_id=conv)
    await cancel(anna, conv)

    assert snapshot["version"] == 2
    assert snapshot["running"] is True
    assert [entity["kind"] for entity in snapshot["entities"]] == ["message", "inference"]
    assert snapshot["entities"][1]["id"] == started["inference_id"]
