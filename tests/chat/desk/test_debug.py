"""The debug API: live state, frames and turns, for staff; to everybody else it is not there."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import pytest
from django.test import AsyncClient

from tests.chat.desk.conftest import OWNER, SAID, Floor, People
from tests.chat.people import Person

CALLS = {
    "/api/debug/conversations": "view",
    "/api/debug/conversations/conv": "view",
    "/api/debug/events/conv": "transcript",
    "/api/debug/turns?conv_id=conv": "transcript",
}


async def get(who: Person, path: str, status: int = 200) -> Any:
    answer = await who.client.get(path)
    assert answer.status_code == status, answer.content
    assert "no-store" in answer["Cache-Control"]
    return msgspec.json.decode(answer.content)


async def test_the_list_says_what_each_session_does_and_no_word_of_it(floor: Floor, person: People):
    await floor.idle("quiet")
    await floor.running("busy")
    await floor.ask("busy", key="k2")
    operator = await person(staff=True, grants="view")
    answer = await operator.client.get("/api/debug/conversations")
    # Both may have been active last in the same millisecond.
    listed = msgspec.json.decode(answer.content)
    [busy, quiet] = sorted(listed, key=lambda session: session["conv_id"])

    assert (quiet["conv_id"], quiet["owner"], quiet["profile"]) == ("quiet", OWNER, "default")
    assert (quiet["state"]["kind"], quiet["running"], quiet["turns"]) == ("idle", False, 1)
    assert (busy["state"]["kind"], busy["running"], busy["queue_depth"]) == ("running", True, 1)
    assert busy["state"]["inference_id"]
    stream = floor.hub.streams.info("busy")
    told = (busy["head_seq"], busy["frames"], busy["bytes"], busy["sockets"], busy["cursor"])
    assert told == (stream.head_seq, stream.frames, stream.bytes, 0, stream.cursor)
    assert SAID.encode() not in answer.content


async def test_one_session_is_told_in_full(floor: Floor, person: People):
    pause_id = await floor.paused("conv")
    await floor.ask("conv", key="k2")
    operator = await person(staff=True, grants="view transcript")
    told = await get(operator, "/api/debug/conversations/conv")

    assert told["state"]["kind"] == "paused"
    assert told["runtime"]["fingerprint"] == told["fingerprint"]
    assert "demo_send_note" in told["runtime"]["tools"]
    [pause] = told["pauses"]
    assert (pause["pause_id"], pause["deadline_ms"]) == (pause_id, told["state"]["until_ms"])
    assert pause["extra"]["toolCalls"][0]["input"] == {"text": SAID}
    [waiting] = told["queue"]
    assert (waiting["idempotency_key"], waiting["prompt"]) == ("k2", SAID)
    [inference] = told["inferences"]
    assert [stage["kind"] for stage in inference["stages"]] == ["model", "pause"]
    assert told["title"] == SAID


async def test_without_the_transcript_one_session_is_told_without_its_words(
    floor: Floor, person: People
):
    await floor.paused("conv")
    await floor.ask("conv", key="k2")
    operator = await person(staff=True, grants="view step cancel")
    answer = await operator.client.get("/api/debug/conversations/conv")
    told = msgspec.json.decode(answer.content)

    assert SAID.encode() not in answer.content
    assert told["queue"][0]["idempotency_key"] == "k2"
    assert told["pauses"][0]["summary"] == "About to run demo_send_note"
    assert "title" not in told


async def test_frames_are_told_with_the_event_they_came_of(floor: Floor, person: People):
    await floor.idle("conv")
    operator = await person(staff=True, grants="transcript")
    told = await get(operator, "/api/debug/events/conv")
    events = told["events"]

    assert [each["seq"] for each in events] == list(range(1, told["head_seq"] + 1))
    assert (told["first_seq"], told["epoch"]) == (1, floor.hub.streams.info("conv").epoch)
    pairs = [(each["event"], each["type"]) for each in events]
    assert pairs[:4] == [
        ("PromptTaken", "chat.message"),
        ("InferenceStarted", "inference.started"),
        ("TextDelta", "llm.start"),
        ("TextDelta", "llm.delta"),
    ]
    assert pairs[-1] == ("InferenceFinished", "inference.finished")
    for each in events:
        assert each["frame"]["event"]["type"] == each["type"]
        assert each["frame"]["event"]["seq"] == each["seq"]


@pytest.mark.parametrize(
    ("query", "types"),
    [
        ("type=chat.message", ["chat.message"]),
        ("type=chat.message&type=inference.finished", ["chat.message", "inference.finished"]),
        ("type=chat.message,inference.started&limit=1", ["chat.message"]),
        ("since_seq=1&limit=2", ["inference.started", "llm.start"]),
        ("since_seq=1&type=chat.message", []),
        ("since_seq=999", []),
        ("limit=0", []),
    ],
)
async def test_frames_are_chosen_by_place_type_and_number(
    floor: Floor, person: People, query: str, types: list[str]
):
    await floor.idle("conv")
    operator = await person(staff=True, superuser=True)
    told = await get(operator, f"/api/debug/events/conv?{query}")
    assert [each["type"] for each in told["events"]] == types


@pytest.mark.parametrize("query", ["since_seq=x", "limit=-1", "limit=10001", "since_seq=²"])
async def test_what_is_no_number_is_refused(floor: Floor, person: People, query: str):
    await floor.idle("conv")
    operator = await person(staff=True, superuser=True)
    told = await get(operator, f"/api/debug/events/conv?{query}", 400)
    assert told["code"] == "bad_request"
    assert "expected a whole number" in told["error"]


async def test_turns_are_told_with_all_their_blocks(floor: Floor, person: People):
    for _ in range(3):
        await floor.idle("conv")
    operator = await person(staff=True, grants="transcript")
    told = await get(operator, "/api/debug/turns?conv_id=conv&limit=2")

    assert told["total"] == 3
    first, second = told["turns"]
    assert first["outcome"] == second["outcome"] == "completed"
    assert first["turn_id"] != second["turn_id"]
    kinds = [block["kind"] for block in second["blocks"]]
    assert kinds == ["system", *["user", "llm_text"] * 3]
    assert second["blocks"][: len(first["blocks"])] == first["blocks"]


async def test_half_a_surrogate_pair_breaks_nothing(floor: Floor, person: People):
    floor.engine.play("half \ud83d of a pair")
    await floor.ask("conv")
    await floor.until("conv", "idle")
    operator = await person(staff=True, superuser=True)
    told = await get(operator, "/api/debug/turns?conv_id=conv")
    page = await operator.client.get("/admin/sessions_app/livesession/conv/")

    assert told["turns"][0]["blocks"][-1]["text"].startswith("half ")
    assert page.status_code == 200
    assert "of a pair" in page.content.decode()


async def test_an_unloaded_session_is_told_and_stays_unloaded(floor: Floor, person: People):
    await floor.idle("conv")
    await floor.hub.sessions.evict("conv")
    operator = await person(staff=True, superuser=True)

    assert (await get(operator, "/api/debug/conversations/conv"))["state"]["kind"] == "unloaded"
    assert len((await get(operator, "/api/debug/turns?conv_id=conv"))["turns"]) == 1
    assert (await get(operator, "/api/debug/events/conv"))["events"]
    assert await get(operator, "/api/debug/conversations") == []


@pytest.mark.parametrize("path", CALLS)
async def test_absent_and_forbidden_are_alike(floor: Floor, person: People, path: str):
    nobody = AsyncClient()
    other = await person()
    staff = await person(staff=True)
    others_grants = {"view", "transcript", "cancel", "step"} - {CALLS[path]}
    half = await person(staff=True, grants=" ".join(others_grants))
    no_staff = await person(superuser=True)
    owner = await person()
    await floor.idle("conv", owner.owner)
    superuser = await person(staff=True, superuser=True)
    permitted = await person(staff=True, grants=CALLS[path])
    absent = await superuser.client.get(path.replace("conv_id=conv", "conv_id=no"))
    if "conv_id" not in path:
        absent = await superuser.client.get(path.replace("/conv", "/no-such-thing"))

    for who in (nobody, *(each.client for each in (other, staff, half, no_staff, owner))):
        answer = await who.get(path)
        assert answer.status_code == absent.status_code == 404
        assert set(msgspec.json.decode(answer.content)) == {"error", "code"}
    for allowed in (superuser, permitted):
        assert (await allowed.client.get(path)).status_code == 200
        assert (await allowed.client.post(path)).status_code == 405


async def test_what_staff_do_by_the_json_calls_is_noted_and_what_owners_do_is_not(
    floor: Floor, person: People, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "webchat.audit")
    owner = await person()
    operator = await person("op", staff=True, grants="cancel step")
    pause_id = await floor.paused("conv", owner.owner)
    wrong = {"conv_id": "conv", "pause_id": "no-such-pause"}
    right = {"conv_id": "conv", "pause_id": pause_id, "decision": "abort"}
    step = {"conv_id": "conv", "enabled": True}
    for who, path, body in (
        (operator, "debug/step-mode", step),
        (owner, "debug/step-mode", step),
        (operator, "debug/continue", wrong),
        (operator, "debug/continue", right),
        (operator, "chat/cancel", {"conv_id": "conv", "inference_id": "x"}),
        (operator, "chat/queue/remove", {"conv_id": "conv", "idempotency_key": "x"}),
        (operator, "chat/queue/run", {"conv_id": "conv", "idempotency_key": "x"}),
    ):
        await who.post(f"/api/{path}", body)
    lines = [r.getMessage() for r in caplog.records if r.name == "webchat.audit"]
    noted = [json.loads(line.removeprefix("audit ")) for line in lines]

    assert {(each["actor"], each["conversation"]) for each in noted} == {("op", "conv")}
    assert [(each["action"], each["outcome"]) for each in noted] == [
        ("step-on", "done"),
        ("decide:continue", "unknown_pause"),
        ("decide:abort", "done"),
        ("cancel", "no_active_inference"),
        ("remove-queued", "not_queued"),
        ("run-queued", "not_queued"),
    ]
