"""ChatClient posts, collects, decides, and says what it waited for in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat.testing import ChatClient, Refusal
from sessions_app.inference.demo_tools import demo_send_note
from sessions_app.inference.events import ThinkingDelta
from sessions_app.inference.shipped_tools import calc
from sessions_app.inference.turns import ToolCall
from sessions_app.testing import Gate, GatedTool, ScriptedEngine, Sleep
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

NOTE = ToolCall(call_id="call_1", name="demo_send_note", arguments={"text": "Hi"})
SUM = ToolCall(call_id="call_1", name="calc", arguments={"expression": "6*7"})


async def test_an_answer_tells_text_thinking_tools_and_the_end():
    engine = ScriptedEngine([ThinkingDelta("hm"), "Let me see.", SUM], ["It is 42."])
    async with running_hub(engine=engine), ChatClient() as client:
        answer = await client.ask("what is 6*7?")

    assert (answer.text, answer.thinking) == ("Let me see.\n\nIt is 42.", "hm")
    [tool] = answer.tools
    assert (tool.name, tool.input, tool.status, tool.result) == (
        "calc", {"expression": "6*7"}, "success", "42",
    )  # fmt: skip
    assert (answer.status, answer.error) == ("completed", None)
    assert [frame["seq"] for frame in client.frames] == list(range(1, len(client.frames) + 1))


async def test_each_answer_is_its_own_and_a_failure_says_why():
    engine = ScriptedEngine(["One."], ["Two."])
    async with running_hub(engine=engine), ChatClient() as client:
        answers = [await client.ask(prompt) for prompt in ("1", "2", "3")]

    assert [answer.text for answer in answers] == ["One.", "Two.", ""]
    assert answers[2].status == "failed"
    assert "was asked for another" in str(answers[2].error)


@pytest.mark.parametrize(
    ("decision", "fields", "status", "ran"),
    [
        ("continue", {}, "success", [{"text": "Hi"}]),
        ("edit", {"edits": {"call_1": {"text": "Ho"}}}, "success", [{"text": "Ho"}]),
        ("skip", {"message": "Not today."}, "skipped", []),
    ],
)
async def test_a_pause_waits_for_a_decision(
    decision: str, fields: dict[str, Any], status: str, ran: list[object]
):
    note = GatedTool(demo_send_note)
    note.gate.open()
    async with (
        running_hub(engine=ScriptedEngine([NOTE], ["Done."]), tools=[note.tool]),
        ChatClient(profile="agent") as client,
    ):
        await client.send("leave a note")
        assert (await client.pause())["extra"]["toolCalls"][0]["name"] == "demo_send_note"
        ended = await client.decide(decision, **fields)
        answer = await client.answer()

    assert (ended["decision"], ended["by"]) == (decision, "visitor")
    assert [tool.status for tool in answer.tools] == [status]
    assert answer.decisions == (decision,)
    assert note.calls == ran


async def test_two_pauses_are_decided_one_after_the_other():
    async with running_hub(engine=ScriptedEngine([SUM], ["42."])), ChatClient() as client:
        await client.step_mode(True)
        await client.send("what is 6*7?")
        phases = [(await client.decide())["phase"] for _ in range(2)]
        answer = await client.answer()

    assert phases == ["after_inference", "after_tools"]
    assert answer.decisions == ("continue", "continue")


@pytest.mark.virtual
async def test_in_virtual_time_an_hour_costs_nothing():
    async with (
        running_hub(engine=ScriptedEngine([NOTE], [Sleep(200), "Nobody."])),
        ChatClient(profile="agent", patience=3600) as client,
    ):
        answer = await client.ask("leave a note")

    assert [tool.status for tool in answer.tools] == ["denied"]
    assert answer.decisions == ("timeout",)


async def test_stop_ends_what_runs_and_forgets_what_waits():
    gate = Gate("never")
    async with running_hub(engine=ScriptedEngine("Hel", gate)), ChatClient() as client:
        await client.send("one")
        assert (await client.send("two"))["status"] == "queued"
        await client.until("llm.delta")
        await client.stop(queue=True)
        answer = await client.answer()

    assert (answer.status, answer.text) == ("cancelled", "Hel")
    assert client.frames[-1]["type"] == "inference.finished"


async def test_a_gated_tool_is_stopped_in_its_work():
    sums = GatedTool(calc)
    async with (
        running_hub(engine=ScriptedEngine(SUM), tools=[sums.tool]),
        ChatClient() as client,
    ):
        await client.send("what is 6*7?")
        await sums.gate.reached()
        await client.stop()
        answer = await client.answer()

    assert [tool.status for tool in answer.tools] == ["cancelled"]


async def test_two_clients_of_one_visitor_see_the_same_and_a_stranger_nothing():
    async with running_hub(engine=ScriptedEngine("Hello.")), ChatClient() as one:
        async with ChatClient(one.conv_id) as two:
            await one.ask("hi")
            await two.answer()
            assert two.frames == one.frames
        stranger = ChatClient(one.conv_id, visitor="bert")
        with pytest.raises(Refusal, match="was refused: 403"):
            async with stranger:
                pass
        assert (await stranger.get("/api/timeline", conv_id=one.conv_id)).status == 404
        with pytest.raises(Refusal, match="404"):
            await stranger.send("let me in")


async def test_what_does_not_come_is_told_with_what_came():
    async with running_hub(engine=ScriptedEngine("Hello.")), ChatClient(patience=0.2) as client:
        await client.send("hi")
        with pytest.raises(Refusal, match=r"ended without a pause"):
            await client.pause()
        await client.answer()
        with pytest.raises(Refusal, match=r"within 0.2 s; .*llm.final, inference"):
            await client.answer()


async def test_a_refused_prompt_is_told_in_the_servers_words():
    async with running_hub(), ChatClient() as client:
        with pytest.raises(Refusal, match=r"400: .*missing_prompt"):
            await client.send("")
        assert (await client.post("/chat/nope", {"prompt": "hi"})).status == 404
        assert (await client.get("/nowhere")).status == 404


@pytest.mark.django_db(transaction=True)
async def test_an_account_decides_in_its_own_name():
    anna = await User.objects.acreate_user("anna")
    async with (
        running_hub(engine=ScriptedEngine([NOTE], ["Done."])),
        ChatClient(user=anna, profile="agent") as client,
    ):
        await client.send("leave a note")
        assert (await client.decide())["by"] == "anna"
        assert (await client.answer()).status == "completed"


async def test_a_socket_that_reads_on_answers_pings_and_long_answers():
    words = "word " * 20_000
    async with running_hub(engine=ScriptedEngine(*[words] * 4)) as hub, ChatClient() as client:
        answer = await client.ask("write")
        [connection] = hub.streams.connections()
        assert connection.may_send

    assert answer.text == words * 4


async def test_a_client_must_be_entered():
    with pytest.raises(RuntimeError, match="async with ChatClient"):
        await ChatClient().answer()


async def test_leaving_ends_what_runs():
    before = asyncio.all_tasks()
    async with running_hub(engine=ScriptedEngine(Gate("never"))), ChatClient() as client:
        await client.send("hi")
    assert asyncio.all_tasks() == before
