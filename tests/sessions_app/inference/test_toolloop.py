"""The tool loop with its pauses: every call and every pause ends once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sessions_app.inference.errors import AlreadyDecided, BadEdits, UnknownPause
from sessions_app.inference.events import (
    InferenceFinished,
    PauseClosed,
    PauseOpened,
    ToolCallFinished,
    ToolCallRequested,
    ToolCallStarted,
)
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.steps import StepController
from sessions_app.inference.toolloop import LoopConfig, SnapshotPhase, ToolLoop
from sessions_app.inference.tools import ToolContext, ToolRegistry, tool
from sessions_app.inference.turns import LlmText, ToolCall, ToolUse, Turn, TurnMetadata, User
from sessions_app.testing import GatedTool, RecordingSink, ScriptedEngine, Step

pytestmark = pytest.mark.virtual

DANGEROUS = {"requires_approval": True}


def call(name: str = "double", call_id: str = "call_1", **arguments: Any) -> ToolCall:
    return ToolCall(call_id=call_id, name=name, arguments=arguments)


async def double(number: int) -> int:
    """Doubles a number."""
    return number * 2


class Bench:
    """One run of the loop, its tools and its pauses."""

    def __init__(
        self, *asks: Sequence[Step], options: dict[str, Any] | None = None, gated: bool = False
    ) -> None:
        self.engine = ScriptedEngine(*asks, ["done"])
        self.sink = RecordingSink()
        self.steps = StepController()
        self.phases: list[SnapshotPhase] = []
        self.double = GatedTool(tool(**(options or {}))(double))
        if not gated:
            self.double.gate.open()
        self.cancellation: Cancellation | None = None

    async def run(self, **config: Any) -> Turn:
        runner = InferenceRunner(
            self.engine,
            loop=ToolLoop(DefaultToolExecutor(), self.steps, config=LoopConfig(**config)),
            tools=ToolRegistry([self.double.tool]),
            observer=lambda phase, turn: self.phases.append(phase),
        )
        metadata = TurnMetadata(session_id="s", inference_id="i")
        self.cancellation = Cancellation()
        return await runner.run(
            Turn(blocks=(User(text="go"),), metadata=metadata),
            sink=self.sink,
            cancellation=self.cancellation,
        )

    def start(self, **config: Any) -> asyncio.Task[Turn]:
        return asyncio.create_task(self.run(**config))

    async def paused(self, count: int = 1) -> PauseOpened:
        await asyncio.sleep(1)  # virtual: by then everybody waits
        opened: list[PauseOpened] = self.events(PauseOpened)
        assert len(opened) == count
        return opened[-1]

    def events(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.sink.events if isinstance(event, kind)]

    @property
    def ran(self) -> list[int]:
        return [arguments["number"] for arguments in self.double.calls]

    @property
    def statuses(self) -> list[str]:
        return [event.status for event in self.events(ToolCallFinished)]

    @property
    def outcome(self) -> str:
        [finished] = self.events(InferenceFinished)
        status: str = finished.status
        return status


def results(turn: Turn) -> list[tuple[str, str]]:
    return [(use.status, use.text) for use in turn.blocks if isinstance(use, ToolUse)]


async def test_a_call_runs_and_the_model_reads_its_result():
    bench = Bench([call(number=21)])
    turn = await bench.run()
    assert results(turn) == [("success", "42")]
    assert bench.outcome == "completed"
    offers = [[each.name for each in offer.tools] for offer in bench.engine.offers]
    assert offers == [["double"], ["double"]]
    assert results(bench.engine.turns[-1]) == [("success", "42")]
    kinds = [type(e) for e in bench.sink.events]
    order = [ToolCallRequested, ToolCallStarted, ToolCallFinished, InferenceFinished]
    assert [kind for kind in kinds if kind in order] == order
    assert bench.phases == [
        *("pre_inference", "post_inference", "post_tools"),
        *("pre_inference", "post_inference", "final"),
    ]


async def test_who_asks_is_read_once_before_the_first_call_and_never_where_nothing_is_called():
    asked: list[str] = []
    seen: list[object] = []

    @tool
    async def whoami(context: ToolContext) -> str:
        seen.append(context.user)
        return "you"

    async def load(owner: str) -> object:
        asked.append(owner)
        return f"the account of {owner}"

    calls = [[call("whoami", "call_1")], [call("whoami", "call_2")]]
    for asks, times in (([], 0), (calls, 1)):
        runner = InferenceRunner(
            ScriptedEngine(*asks, ["done"]),
            loop=ToolLoop(DefaultToolExecutor(), StepController()),
            tools=ToolRegistry([whoami]),
            load_user=load,
        )
        await runner.run(
            Turn(
                blocks=(User(text="go"),),
                metadata=TurnMetadata(session_id="s", inference_id="i"),
            ),
            sink=RecordingSink(),
            cancellation=Cancellation(),
            owner="user:1",
        )
        assert asked == ["user:1"] * times
        assert seen == ["the account of user:1"] * len(asks)


async def test_at_the_limit_the_calls_are_skipped_and_the_inference_says_so_once():
    bench = Bench(*([call(number=n)] for n in range(9)))
    turn = await bench.run(max_iterations=3)
    assert bench.ran == [0, 1]
    assert bench.statuses == ["success", "success", "skipped"]
    assert bench.outcome == "max_iterations"
    assert isinstance(turn.blocks[-1], LlmText)


async def test_ids_that_repeat_or_are_empty_are_told_apart_and_the_provider_keeps_its_own():
    same = [call(call_id="x", number=1), call(call_id="x", number=2), call(call_id="", number=3)]
    bench = Bench(same, [call(call_id="x", number=4)])
    turn = await bench.run()
    asked = [block for block in turn.blocks if isinstance(block, ToolCall)]
    assert len({each.call_id for each in asked}) == 4
    assert [text for _, text in results(turn)] == ["2", "4", "6", "8"]
    assert (asked[0].call_id, asked[0].provider_id) == ("x", "x")
    assert asked[3].provider_id == "x"
    assert len({each.provider_id for each in asked[:3]}) == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (call(name="dubble", number=1), "double"),
        (call(number="many"), "number"),
        (call(), "number"),
        (ToolCall(call_id="c", name="double", arguments='{"number": 1'), "JSON"),
    ],
)
async def test_a_wrong_call_is_a_result_the_model_can_mend_it_by(asked: ToolCall, said: str):
    bench = Bench([asked])
    [(status, text)] = results(await bench.run())
    assert (status, bench.ran, bench.outcome) == ("error", [], "completed")
    assert said in text


# Pauses


@pytest.mark.parametrize(
    ("decision", "ran", "status", "outcome"),
    [
        ("continue", [1], ["success"], "completed"),
        ("skip", [], ["skipped"], "completed"),
        ("abort", [], [], "cancelled"),
    ],
)
async def test_a_step_before_the_tools_does_what_the_person_decides(
    decision: Any, ran: list[int], status: list[str], outcome: str
):
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    pause = await bench.paused()
    assert (pause.phase, pause.on_timeout) == ("after_inference", "continue")
    resolution = bench.steps.decide(pause.pause_id, decision, by="anna", message="not now")
    assert (resolution.decision, resolution.by) == (decision, "anna")
    bench.steps.set_enabled(False, by="anna")
    turn = await task
    assert (bench.ran, bench.statuses, bench.outcome) == (ran, status, outcome)
    assert len(results(turn)) == 1
    if decision == "skip":
        assert results(turn) == [("skipped", "not now")]
    assert len(bench.events(PauseClosed)) == len(bench.events(PauseOpened))


async def test_an_edit_changes_the_call_that_runs():
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    pause = await bench.paused()
    with pytest.raises(BadEdits, match="number"):
        bench.steps.decide(pause.pause_id, "edit", by="a", edits={"call_1": {"number": "x"}})
    with pytest.raises(BadEdits, match="call_9"):
        bench.steps.decide(pause.pause_id, "edit", by="a", edits={"call_9": {"number": 2}})
    bench.steps.decide(pause.pause_id, "edit", by="a", edits={"call_1": {"number": 5}})
    bench.steps.set_enabled(False, by="anna")
    turn = await task
    assert results(turn) == [("success", "10")]
    [asked] = [block for block in turn.blocks if isinstance(block, ToolCall)]
    assert asked.arguments == {"number": 5}, "the model is told what ran, in its own words' place"


async def test_after_the_tools_a_step_shows_the_results_and_abort_ends_there():
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    bench.steps.decide((await bench.paused()).pause_id, "continue", by="anna")
    after = await bench.paused(2)
    assert after.phase == "after_tools"
    shown = {"id": "call_1", "name": "double", "status": "success", "result": "2"}
    assert after.extra["results"] == [shown]
    bench.steps.decide(after.pause_id, "abort", by="anna")
    turn = await task
    assert bench.outcome == "cancelled"
    assert results(turn) == [("success", "2")]


async def test_nobody_at_a_step_means_it_goes_on_after_its_time():
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    began = asyncio.get_running_loop().time()
    await bench.run(step_timeout=30)
    assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=1)
    assert [(p.decision, p.by) for p in bench.events(PauseClosed)] == [("timeout", "timeout")] * 2
    assert bench.statuses == ["success"]


async def test_switching_steps_off_releases_every_pause_once():
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    pause = await bench.paused()
    bench.steps.set_enabled(False, by="bert")
    await task
    assert [(p.decision, p.by) for p in bench.events(PauseClosed)] == [("disabled", "bert")]
    with pytest.raises(AlreadyDecided):
        bench.steps.decide(pause.pause_id, "continue", by="anna")


async def test_a_decision_is_told_of_in_the_step_that_makes_it():
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    pause = await bench.paused()
    bench.steps.decide(pause.pause_id, "abort", by="anna")
    assert [(p.pause_id, p.decision) for p in bench.events(PauseClosed)] == [
        (pause.pause_id, "abort")
    ]
    await task
    assert len(bench.events(PauseClosed)) == 1


@pytest.mark.parametrize("phase", [1, 2])
async def test_cancel_in_a_pause_ends_it_once_and_nothing_runs_after(phase: int):
    bench = Bench([call(number=1)])
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    pause = await bench.paused()
    if phase == 2:
        bench.steps.decide(pause.pause_id, "continue", by="anna")
        pause = await bench.paused(2)
    assert bench.cancellation is not None
    bench.cancellation.request()
    turn = await task
    assert bench.outcome == "cancelled"
    assert bench.events(PauseClosed)[-1].decision == "cancelled"
    assert len(bench.events(PauseClosed)) == phase
    assert bench.ran == [1] * (phase - 1)
    assert len(results(turn)) == 1
    with pytest.raises(AlreadyDecided):
        bench.steps.decide(pause.pause_id, "continue", by="anna")


async def test_the_first_decision_wins_and_the_second_is_told():
    bench = Bench([call(number=1)], options=DANGEROUS)
    task = bench.start()
    pause = await bench.paused()
    bench.steps.decide(pause.pause_id, "skip", by="anna")
    with pytest.raises(AlreadyDecided, match="skip by anna"):
        bench.steps.decide(pause.pause_id, "continue", by="bert")
    with pytest.raises(UnknownPause):
        bench.steps.decide("another", "continue", by="bert")
    await task
    assert bench.ran == []


# Approvals


async def test_a_dangerous_tool_asks_with_step_mode_off_and_nobody_means_denied():
    bench = Bench([call(number=1)], options=DANGEROUS)
    began = asyncio.get_running_loop().time()
    turn = await bench.run(approval_timeout=300)
    assert asyncio.get_running_loop().time() - began == pytest.approx(300, abs=1)
    [pause] = bench.events(PauseOpened)
    assert pause.on_timeout == "deny"
    assert (bench.ran, bench.statuses, bench.outcome) == ([], ["denied"], "completed")
    assert [status for status, _ in results(turn)] == ["denied"]


async def test_switching_steps_off_is_no_approval():
    bench = Bench([call(number=1)], options=DANGEROUS)
    bench.steps.set_enabled(True, by="anna")
    task = bench.start()
    await bench.paused()
    bench.steps.set_enabled(False, by="anna")
    assert len(bench.steps.open) == 1
    await task
    assert bench.statuses == ["denied"]


@pytest.mark.parametrize(("number", "asks"), [(1, False), (100, True)])
async def test_a_predicate_decides_which_arguments_need_a_person(number: int, asks: bool):
    risky: Callable[[Any], bool] = lambda arguments: arguments["number"] > 10  # noqa: E731
    bench = Bench([call(number=number)], options={"requires_approval": risky})
    await bench.run()
    assert bool(bench.events(PauseOpened)) is asks


async def test_what_was_agreed_to_is_what_runs_and_nothing_else():
    bench = Bench([call(number=1)], options=DANGEROUS)
    task = bench.start()
    pause = await bench.paused()
    asked = bench.events(ToolCallRequested)[0]
    calls: Any = pause.extra["toolCalls"]
    assert calls[0]["input"] == asked.input
    bench.steps.decide(pause.pause_id, "continue", by="anna")
    await task
    assert bench.ran == [1]


# Cancel


async def test_cancel_in_a_tool_closes_it_as_cancelled_before_the_end():
    bench = Bench([call(number=1), call(call_id="call_2", number=2)], gated=True)
    task = bench.start()
    await bench.double.gate.reached()
    assert bench.cancellation is not None
    bench.cancellation.request()
    turn = await task
    assert bench.statuses == ["cancelled", "cancelled"]
    assert isinstance(bench.sink.events[-1], InferenceFinished)
    assert [status for status, _ in results(turn)] == ["cancelled", "cancelled"]
    assert bench.outcome == "cancelled"


async def test_a_tool_that_aborts_fails_the_inference_and_its_results_stay_in_the_history():
    bench = Bench([call(number=1)], options={"on_error": "abort", "timeout": 5}, gated=True)
    turn = await bench.run()
    assert bench.outcome == "failed"
    assert [status for status, _ in results(turn)] == ["timeout"]
    assert "double" in bench.events(InferenceFinished)[0].error
