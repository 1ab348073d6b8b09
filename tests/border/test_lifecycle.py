"""Tools, pauses, the queue and idempotency keys as a client meets them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import Frame, Visitor


def of(frames: list[Frame], kind: str) -> list[Frame]:
    return [frame for frame in frames if frame["type"] == kind]


async def asked(anna: Visitor, conv: str, prompt: str, **fields: Any) -> list[Frame]:
    """All frames of one prompt in a new conversation."""
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat(prompt, conv, **fields)
        return await socket.until("inference.finished")


# Tools


async def test_a_tool_call_is_told_from_its_request_to_its_end(anna: Visitor, conv: str):
    frames = await asked(anna, conv, "calculate 6*7")
    [start], [result], [done] = (of(frames, f"tool.{kind}") for kind in ("start", "result", "done"))
    assert start["data"] == {"name": "calc", "input": {"expression": "6*7"}}
    assert of(frames, "tool.delta")[0]["data"]["patch"] == {
        "exec": True,
        "input": {"expression": "6*7"},
    }
    assert (result["data"]["result"], result["data"]["status"]) == ("42", "success")
    assert isinstance(result["data"]["durationMs"], int)
    assert done["data"] == {"status": "success"}
    assert done["seq"] == result["seq"] + 1
    assert {start["id"], result["id"], done["id"]} == {start["id"]}
    assert "42" in of(frames, "llm.final")[-1]["data"]["text"]
    assert frames[-1]["data"]["status"] == "completed"


async def test_the_timeline_has_the_call_and_its_result(anna: Visitor, conv: str):
    frames = await asked(anna, conv, "calculate 6*7")
    call_id = of(frames, "tool.start")[0]["id"]
    timeline = await anna.get("/api/timeline", conv_id=conv)
    entities = {entity["id"]: entity for entity in timeline["entities"]}
    call, result = entities[call_id], entities[f"{call_id}:result"]
    assert (call["kind"], call["props"]["status"], call["props"]["done"]) == (
        "tool_call",
        "success",
        True,
    )
    assert (result["kind"], result["props"]["result"]) == ("tool_result", "42")


async def test_parallel_calls_each_end_once(anna: Visitor, conv: str):
    frames = await asked(anna, conv, "tools")
    started = [frame["id"] for frame in of(frames, "tool.start")]
    assert len(started) > 1
    assert sorted(frame["id"] for frame in of(frames, "tool.done")) == sorted(started)


@pytest.mark.parametrize(
    ("prompt", "status"), [("unknown tool", "error"), ("bad arguments", "error")]
)
async def test_a_wrong_call_ends_as_an_error_and_the_model_goes_on(
    anna: Visitor, conv: str, prompt: str, status: str
):
    frames = await asked(anna, conv, prompt)
    assert of(frames, "tool.done")[0]["data"]["status"] == status
    assert frames[-1]["data"]["status"] == "completed"


async def test_a_model_that_asks_for_ever_is_ended_at_the_limit_once(anna: Visitor, conv: str):
    frames = await asked(anna, conv, "loop")
    assert of(frames, "tool.done")[-1]["data"]["status"] == "skipped"
    assert [frame["data"]["status"] for frame in of(frames, "inference.finished")] == [
        "max_iterations"
    ]


# Pauses


@pytest.mark.parametrize(
    ("decision", "status"), [("continue", "success"), ("skip", "skipped"), ("abort", "cancelled")]
)
async def test_an_approval_is_decided_once_for_every_tab(
    anna: Visitor, conv: str, decision: str, status: str
):
    async with anna.socket(conv) as one, anna.socket(conv) as two:
        started = await anna.post("/chat/agent", {"prompt": "approve", "conv_id": conv})
        assert started.status_code == 200
        [pause] = of(await one.until("debugger.pause"), "debugger.pause")
        assert pause["data"]["onTimeout"] == "deny"
        body = {"conv_id": conv, "pause_id": pause["id"], "decision": decision}
        answers = await asyncio.gather(*(anna.post("/api/debug/continue", body) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        decided = {answer.status_code: answer.json()["pause"] for answer in answers}
        assert decided[200] == decided[409]
        assert (decided[200]["decision"], decided[200]["by"]) == (decision, "visitor")
        ends = [of(await tab.until("inference.finished"), "tool.done") for tab in (one, two)]
    assert [[end["data"]["status"] for end in tab] for tab in ends] == [[status]] * 2


async def test_step_mode_stops_before_and_after_the_tools(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        switched = await anna.post("/api/debug/step-mode", {"conv_id": conv, "enabled": True})
        assert switched.json() == {"conv_id": conv, "enabled": True}
        await anna.chat("calculate 1+1", conv)
        phases = []
        for _ in range(2):
            pause = (await socket.until("debugger.pause"))[-1]
            phases.append(pause["data"]["phase"])
            body = {"conv_id": conv, "pause_id": pause["id"]}
            assert (await anna.post("/api/debug/continue", body)).status_code == 200
        frames = await socket.until("inference.finished")
    assert phases == ["after_inference", "after_tools"]
    assert frames[-1]["data"]["status"] == "completed"


async def test_wrong_edits_are_refused_and_the_pause_still_waits(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await anna.post("/api/debug/step-mode", {"conv_id": conv, "enabled": True})
        await anna.chat("calculate 1+1", conv)
        pause = (await socket.until("debugger.pause"))[-1]
        call_id = pause["data"]["extra"]["toolCalls"][0]["id"]
        body = {"conv_id": conv, "pause_id": pause["id"], "decision": "edit"}
        wrong = await anna.post("/api/debug/continue", {**body, "edits": {call_id: {"x": 1}}})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_edits")
        edits = {call_id: {"expression": "2*8"}}
        assert (await anna.post("/api/debug/continue", {**body, "edits": edits})).status_code == 200
        result = (await socket.until("tool.result"))[-1]
        assert result["data"]["result"] == "16"
        await anna.post("/api/debug/step-mode", {"conv_id": conv, "enabled": False})


async def test_another_visitor_decides_nothing(anna: Visitor, bert: Visitor, conv: str):
    await anna.chat("hello", conv)
    for path, body in (
        ("/api/debug/step-mode", {"conv_id": conv, "enabled": True}),
        ("/api/debug/continue", {"conv_id": conv, "pause_id": "x"}),
        ("/api/chat/queue/remove", {"conv_id": conv, "idempotency_key": "x"}),
        ("/api/chat/queue/run", {"conv_id": conv, "idempotency_key": "x"}),
    ):
        assert (await bert.post(path, body)).status_code == 404
    unknown = await anna.post("/api/debug/continue", {"conv_id": conv, "pause_id": "x"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_pause")


# Queue and keys


async def test_prompts_wait_are_shown_removed_and_run(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await anna.chat("hang", conv)
        second = await anna.post("/chat", {"prompt": "hello", "conv_id": conv}, Idempotency_Key="b")
        third = await anna.post("/chat", {"prompt": "later", "conv_id": conv}, Idempotency_Key="c")
        assert (second.status_code, third.status_code) == (202, 202)
        assert third.json() == {
            "status": "queued",
            "queue_position": 2,
            "queue_depth": 2,
            "conv_id": conv,
            "session_id": conv,
            "idempotency_key": "c",
        }
        removed = {"conv_id": conv, "idempotency_key": "c"}
        assert (await anna.post("/api/chat/queue/remove", removed)).json() == {"removed": True}
        again = await anna.post("/api/chat/queue/remove", removed)
        assert (again.status_code, again.json()["code"]) == (404, "not_queued")
        assert (await anna.get("/api/conversations"))[0]["queue_depth"] == 1
        await anna.post("/api/chat/cancel", {"conv_id": conv})
        frames = await socket.until("inference.finished") + await socket.until("inference.finished")
    depths = [frame["data"]["depth"] for frame in of(frames, "queue.updated")]
    assert depths == [1, 2, 1, 0]
    assert [frame["data"]["content"] for frame in of(frames, "chat.message")] == ["hang", "hello"]


async def test_the_same_key_again_gets_the_first_answer(anna: Visitor, conv: str):
    body = {"prompt": "fail at once", "conv_id": conv}
    answers = await asyncio.gather(
        *(anna.post("/chat", body, Idempotency_Key="one-key") for _ in range(30))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
    assert sorted(map(str, replayed)) == ["None"] + ["true"] * 29
    entities = (await anna.get("/api/timeline", conv_id=conv))["entities"]
    assert [entity["kind"] for entity in entities if entity["kind"] == "inference"] == ["inference"]
    other = await anna.post("/chat", {**body, "prompt": "else"}, Idempotency_Key="one-key")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_prompt_that_interrupts_runs_next(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        await anna.chat("hang", conv)
        now = await anna.post("/chat", {"prompt": "hello", "conv_id": conv, "policy": "interrupt"})
        assert (now.status_code, now.json()["queue_position"]) == (202, 1)
        first = await socket.until("inference.finished")
        second = await socket.until("inference.finished")
    assert (first[-1]["data"]["status"], second[-1]["data"]["status"]) == ("cancelled", "completed")


async def test_a_waiting_prompt_is_run_now(anna: Visitor, conv: str):
    async with anna.socket(conv) as socket:
        hanging = await anna.chat("hang", conv)
        prompts = {"b": "hello", "c": "what is this"}
        for key, prompt in prompts.items():
            await anna.post("/chat", {"prompt": prompt, "conv_id": conv}, Idempotency_Key=key)
        run = {"conv_id": conv, "idempotency_key": "c"}
        answer = await anna.post("/api/chat/queue/run", run)
        assert (answer.status_code, answer.json()) == (
            200,
            {"queue_position": 1, "inference_id": hanging["inference_id"]},
        )
        frames = [frame for _ in range(3) for frame in await socket.until("inference.finished")]
        again = await anna.post("/api/chat/queue/run", run)
        assert (again.status_code, again.json()["code"]) == (404, "not_queued")
    orders = [
        [item["idempotencyKey"] for item in frame["data"]["items"]]
        for frame in of(frames, "queue.updated")
    ]
    assert orders == [["b"], ["b", "c"], ["c", "b"], ["b"], []]
    said = [frame["data"]["content"] for frame in of(frames, "chat.message")]
    assert said == ["hang", "what is this", "hello"]
    replayed = await anna.post(
        "/chat", {"prompt": prompts["c"], "conv_id": conv}, Idempotency_Key="c"
    )
    assert (replayed.status_code, replayed.json()["queue_position"]) == (202, 2)
