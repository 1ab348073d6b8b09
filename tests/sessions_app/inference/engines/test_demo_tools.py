"""The demo agent with tools, through the real loop: every kind of card, and the truth."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from sessions_app.inference.demo_tools import demo_send_note, demo_task
from sessions_app.inference.engines.demo import DemoEngine
from sessions_app.inference.engines.demo_acts import NO_MODES, NO_TOOLS
from sessions_app.inference.engines.demo_scripts import HELP
from sessions_app.inference.events import (
    AgentModeSwitched,
    InferenceFinished,
    ModelCallFinished,
    PauseOpened,
    ToolCallFinished,
    ToolCallRequested,
    ToolProgress,
)
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.middleware import AgentModes, agent_mode
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.shipped_tools import calc, current_time
from sessions_app.inference.steps import StepController
from sessions_app.inference.toolloop import LoopConfig, ToolLoop
from sessions_app.inference.tools import Tool, ToolRegistry, offering
from sessions_app.inference.turns import LlmText, ToolCall, Turn, TurnMetadata, User
from sessions_app.testing import RecordingSink
from tests.standins.recording import Recorder, ask

TOOLS = (calc, current_time, demo_send_note, demo_task)
MODES = AgentModes({"plan": "Make plans.", "do": "Do things.", "check": "Check."}, "plan")


class Talk:
    """A conversation with the demo agent; what happened in it is in `sink`."""

    def __init__(
        self,
        *tools: Tool,
        modes: AgentModes | None = None,
        approval_timeout: float = 300.0,
        max_iterations: int = 5,
    ) -> None:
        config = LoopConfig(max_iterations=max_iterations, approval_timeout=approval_timeout)
        self._runner = InferenceRunner(
            DemoEngine(pace=0),
            middlewares=[agent_mode(modes)] if modes else [],
            loop=ToolLoop(DefaultToolExecutor(), StepController(), config=config),
            tools=ToolRegistry(tools),
        )
        self.turn = Turn()
        self.sink = RecordingSink()

    async def say(self, prompt: str) -> str:
        """The last words of the answer."""
        asked = self.turn.derive(User(text=prompt), metadata=TurnMetadata(inference_id="i"))
        self.sink.record.clear()
        self.turn = await self._runner.run(
            asked, sink=self.sink, cancellation=Cancellation(), owner=""
        )
        last = self.turn.blocks[-1]
        assert isinstance(last, LlmText)
        return last.text

    @property
    def ends(self) -> list[tuple[str, str]]:
        """Name and status of each call of the last prompt, in the order they were asked."""
        ended = {e.call_id: e.status for e in self.sink.events if isinstance(e, ToolCallFinished)}
        return [
            (e.name, ended[e.call_id]) for e in self.sink.events if isinstance(e, ToolCallRequested)
        ]

    @property
    def outcome(self) -> str:
        [finished] = [e for e in self.sink.events if isinstance(e, InferenceFinished)]
        return finished.status


@pytest.mark.parametrize("prompt", ["calculate 6*7", "calc 6*7", "Compute  6*7 = ?"])
async def test_a_sum_is_worked_out_by_the_tool(prompt: str) -> None:
    talk = Talk(*TOOLS)
    assert await talk.say(prompt) == "The result is `42`."
    assert talk.ends == [("calc", "success")]
    assert talk.outcome == "completed"


async def test_the_first_call_of_the_model_asks_and_the_second_answers() -> None:
    talk = Talk(*TOOLS)
    await talk.say("calc 6*7")
    reasons = [e.stop_reason for e in talk.sink.events if isinstance(e, ModelCallFinished)]
    assert reasons == ["tool_calls", "stop"]


@pytest.mark.parametrize(
    ("prompt", "zone"),
    [("What time is it?", "+00:00"), ("what time is it in Asia/Tokyo", "+09:00")],
)
async def test_the_time_is_the_tools(prompt: str, zone: str) -> None:
    answer = await Talk(*TOOLS).say(prompt)
    assert re.fullmatch(rf"It is `20\S+T\S+{re.escape(zone)}`, says the tool .*", answer)


async def test_a_result_that_is_an_error_is_told_as_one() -> None:
    talk = Talk(*TOOLS)
    assert "failed: `calc failed: division by zero`" in await talk.say("calc 1/0")
    assert talk.ends == [("calc", "error")]


async def test_tools_asks_for_three_things_at_once_and_names_the_results() -> None:
    talk = Talk(*TOOLS)
    answer = await talk.say("tools")
    assert talk.ends == [(name, "success") for name in ("calc", "calc", "current_time")]
    for told in ("`42`", "`18446744073709551616`", "`current_time` with `{}` gave `20"):
        assert told in answer


async def test_tools_leaves_out_what_is_not_offered() -> None:
    talk = Talk(calc)
    assert "`42`" in await talk.say("tools")
    assert talk.ends == [("calc", "success")] * 2


async def test_loop_goes_on_until_the_limit() -> None:
    talk = Talk(*TOOLS, max_iterations=4)
    await talk.say("loop")
    assert talk.outcome == "max_iterations"
    assert talk.ends == [("current_time", "success")] * 3 + [("current_time", "skipped")]


async def test_an_unknown_tool_is_called_and_its_refusal_told() -> None:
    talk = Talk(*TOOLS)
    assert "unknown tool 'crystal_ball'" in await talk.say("unknown tool")
    assert talk.ends == [("crystal_ball", "error")]


async def test_bad_arguments_are_refused_and_the_refusals_told() -> None:
    talk = Talk(*TOOLS)
    answer = await talk.say("bad arguments")
    assert "not a JSON object" in answer
    assert "invalid arguments for calc" in answer
    assert talk.ends == [("calc", "error")] * 2
    raw, _ = (block.arguments for block in talk.turn.blocks if isinstance(block, ToolCall))
    assert isinstance(raw, str)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("prompt", "status", "told"),
    [
        ("progress", "success", "`All steps are done.`"),
        ("slow tool", "timeout", "was too slow: `demo_task did not answer within 5 seconds`"),
        ("broken tool", "error", "failed: `demo_task failed unexpectedly"),
        ("forbidden", "denied", "was denied: `Nobody may do this"),
        ("huge result", "success", "gave `line 1 of 4000"),
    ],
)
async def test_what_can_become_of_a_call_is_shown_and_told(
    prompt: str, status: str, told: str
) -> None:
    talk = Talk(*TOOLS)
    assert told in await talk.say(prompt)
    assert talk.ends == [("demo_task", status)]


@pytest.mark.virtual
async def test_progress_goes_to_its_end_and_a_huge_result_is_cut() -> None:
    talk = Talk(*TOOLS)
    await talk.say("progress")
    steps = [event.progress for event in talk.sink.events if isinstance(event, ToolProgress)]
    assert steps == [n / 10 for n in range(1, 11)]

    await talk.say("huge result")
    [ended] = [event for event in talk.sink.events if isinstance(event, ToolCallFinished)]
    assert "[cut:" in ended.result


@pytest.mark.virtual
async def test_approve_waits_for_a_person_and_tells_that_nobody_came() -> None:
    talk = Talk(*TOOLS, approval_timeout=60)
    answer = await talk.say("approve")
    [pause] = [event for event in talk.sink.events if isinstance(event, PauseOpened)]
    assert pause.on_timeout == "deny"
    assert talk.ends == [("demo_send_note", "denied")]
    assert "`demo_send_note`" in answer
    assert "was denied: `Nobody agreed to this call in time.`" in answer


async def test_every_prompt_has_its_own_results() -> None:
    talk = Talk(*TOOLS)
    assert [await talk.say(f"calc {n}+1") for n in (1, 2)] == [
        "The result is `2`.",
        "The result is `3`.",
    ]
    ids = [block.call_id for block in talk.turn.blocks if isinstance(block, ToolCall)]
    assert ids == ["demo_1", "demo_2"]
    assert "can't answer" in await talk.say("and now for something else")


async def test_the_same_conversation_goes_the_same_way() -> None:
    first, second = Talk(*TOOLS), Talk(*TOOLS)
    for prompt in ("calc 6*7", "bad arguments"):
        assert await first.say(prompt) == await second.say(prompt)


# Honest about what it has not


WITH_TOOLS = (
    "what time is it",
    "calculate 6*7",
    "who am I",
    "tools",
    "loop",
    "unknown tool",
    "bad arguments",
    "approve",
    "progress",
    "slow tool",
    "broken tool",
    "forbidden",
    "huge result",
)


@pytest.mark.parametrize("prompt", WITH_TOOLS)
async def test_without_tools_it_says_so_and_calls_nothing(prompt: str) -> None:
    talk = Talk()
    assert await talk.say(prompt) == NO_TOOLS
    assert talk.ends == []
    heard = Recorder()
    turn = await ask(DemoEngine(pace=0), prompt, heard)
    assert not any(isinstance(block, ToolCall) for block in turn.blocks)


@pytest.mark.parametrize(
    ("prompt", "missing", "tools"),
    [
        ("approve", "demo_send_note", (calc, current_time)),
        ("what time is it", "current_time", (calc,)),
        ("calc 6*7", "calc", (current_time,)),
        ("who am I", "my_account", TOOLS),
    ],
)
async def test_a_tool_that_is_not_offered_is_named_and_not_called(
    prompt: str, missing: str, tools: Sequence[Tool]
) -> None:
    talk = Talk(*tools)
    answer = await talk.say(prompt)
    assert f"needs the tool `{missing}`" in answer
    assert all(f"`{tool.name}`" in answer for tool in tools)
    assert talk.ends == []


async def test_it_calls_only_what_is_offered_in_this_very_call() -> None:
    with offering(TOOLS, "none"):
        turn = await ask(DemoEngine(pace=0), "calc 6*7", Recorder())
    assert not any(isinstance(block, ToolCall) for block in turn.blocks)


# Modes


async def test_mode_switches_where_the_profile_has_modes() -> None:
    talk = Talk(modes=MODES)
    await talk.say("mode")
    await talk.say("mode check")
    switched = [event for event in talk.sink.events if isinstance(event, AgentModeSwitched)]
    assert [(event.previous, event.current) for event in switched] == [("do", "check")]
    assert "modeSwitch" not in talk.sink.text


async def test_a_mode_that_there_is_not_is_answered_with_those_there_are() -> None:
    talk = Talk(modes=MODES)
    assert await talk.say("switch mode dance") == "I can switch to: do, check."
    assert not any(isinstance(event, AgentModeSwitched) for event in talk.sink.events)


async def test_without_modes_it_says_so() -> None:
    assert await Talk(*TOOLS).say("mode") == NO_MODES


# Help


@pytest.mark.virtual
async def test_help_names_every_prompt_that_does_something_with_tools() -> None:
    talk = Talk(*TOOLS, approval_timeout=0)
    for prompt in (*WITH_TOOLS, "mode"):
        assert re.search(rf"\| `{re.escape(prompt)}( in Asia/Tokyo)?` \|", HELP), prompt
        assert "can't answer that" not in await talk.say(prompt)
