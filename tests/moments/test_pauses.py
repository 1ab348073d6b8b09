"""Every pause and every way it can end: what runs, what the model reads, how the inference goes on.

One table holds them all. Whatever the row, the pause is told once and ends once; who decides after
that is told what was decided.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pytest

from sessions_app.inference.errors import AlreadyDecided, BadEdits, UnknownPause
from sessions_app.inference.events import NEVER_BEGAN
from sessions_app.inference.executor import CANCELLED, DefaultToolExecutor, PreparedCall
from sessions_app.inference.steps import OpenPause, PersonDecision
from sessions_app.inference.tools import MASK, Arguments, Tool, ToolContext, tool
from sessions_app.inference.turns import ToolCall
from sessions_app.testing import Sleep
from tests.moments.bench import ANNA, CONV, Bench, call, ends, model, of
from tests.moments.test_moments import statuses, uses

pytestmark = [pytest.mark.virtual, pytest.mark.usefixtures("log_place")]

Kind: TypeAlias = Literal["step before", "step after", "approval"]


class Notes:
    """A tool that doubles, and what it was called with."""

    def __init__(self, **options: Any) -> None:
        self.ran: list[int] = []

        async def double(number: int) -> int:
            self.ran.append(number)
            return number * 2

        self.tool: Tool = tool(**options)(double)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One pause and its end. `after` is how many seconds it waited."""

    kind: Kind
    end: str
    ran: list[int]
    result: tuple[str, str]
    outcome: str = "completed"
    decision: str
    by: str = "anna"
    after: float = 1

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.end}"


DONE, CUT = ("success", "2"), ("cancelled", NEVER_BEGAN)
NOBODY = ("denied", "Nobody agreed to this call in time.")
TABLE = [
    Row(kind="step before", end="continue", ran=[1], result=DONE, decision="continue"),
    Row(kind="step before", end="edit", ran=[5], result=("success", "10"), decision="edit"),
    Row(kind="step before", end="skip", ran=[], result=("skipped", "not now"), decision="skip"),
    Row(kind="step before", end="abort", ran=[], result=CUT, outcome="cancelled", decision="abort"),
    Row(
        kind="step before", end="timeout", ran=[1], result=DONE, decision="timeout",
        by="timeout", after=30,
    ),
    Row(kind="step before", end="disable", ran=[1], result=DONE, decision="disabled", by="bert"),
    Row(
        kind="step before", end="cancel", ran=[], result=CUT, outcome="cancelled",
        decision="cancelled", by="system",
    ),
    Row(kind="step after", end="continue", ran=[1], result=DONE, decision="continue"),
    # There is nothing left to edit: refused, and the pause waits for another decision.
    Row(kind="step after", end="edit", ran=[1], result=DONE, decision="continue"),
    # Nor to skip: the model gets the results.
    Row(kind="step after", end="skip", ran=[1], result=DONE, decision="skip"),
    Row(
        kind="step after", end="abort", ran=[1], result=DONE, outcome="cancelled",
        decision="abort",
    ),
    Row(
        kind="step after", end="timeout", ran=[1], result=DONE, decision="timeout", by="timeout",
        after=30,
    ),
    Row(kind="step after", end="disable", ran=[1], result=DONE, decision="disabled", by="bert"),
    Row(
        kind="step after", end="cancel", ran=[1], result=DONE, outcome="cancelled",
        decision="cancelled", by="system",
    ),
    Row(kind="approval", end="continue", ran=[1], result=DONE, decision="continue"),
    Row(kind="approval", end="edit", ran=[5], result=("success", "10"), decision="edit"),
    Row(kind="approval", end="skip", ran=[], result=("skipped", "not now"), decision="skip"),
    Row(kind="approval", end="abort", ran=[], result=CUT, outcome="cancelled", decision="abort"),
    Row(
        kind="approval", end="timeout", ran=[], result=NOBODY, decision="timeout", by="timeout",
        after=300,
    ),
    # Step mode going off is nobody's agreement.
    Row(
        kind="approval", end="disable", ran=[], result=NOBODY, decision="timeout", by="timeout",
        after=300,
    ),
    Row(
        kind="approval", end="cancel", ran=[], result=CUT, outcome="cancelled",
        decision="cancelled", by="system",
    ),
]  # fmt: skip


async def end(bench: Bench, pause: OpenPause, how: str) -> None:
    match how:
        case "edit":
            edits = {"a": {"number": 5}}
            if pause.request.phase == "after_tools":
                with pytest.raises(BadEdits, match="nothing left to edit"):
                    await bench.decide(pause, "edit", edits=edits)
                await bench.decide(pause, "continue")
            else:
                await bench.decide(pause, "edit", edits=edits)
        case "disable":
            await bench.manager.set_step_mode(CONV, False, by="bert")
        case "cancel":
            await bench.cancel()
        case "timeout":
            pass
        case "continue" | "skip" | "abort":
            message = "not now" if how == "skip" else ""
            await bench.decide(pause, how, message=message)
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
async def test_a_pause_ends(row: Row):
    notes = Notes(requires_approval=row.kind == "approval")
    bench = Bench(model(["so", call("double", "a", number=1)]), tools=[notes.tool])
    await bench.manager.open(CONV, owner=ANNA, profile=None)
    stepping = row.kind != "approval" or row.end == "disable"
    await bench.manager.set_step_mode(CONV, stepping, by="anna")
    await bench.ask("one")
    pause = await bench.paused()
    if row.kind == "step after":
        await bench.decide(pause, "continue")
        pause = await bench.paused()
    await end(bench, pause, row.end)
    while bench.session.active:
        await asyncio.sleep(1)
        for other in bench.session.steps.open:
            if other.pause_id != pause.pause_id:
                await bench.decide(other, "continue")

    assert notes.ran == row.ran
    blocks = await bench.next_request()
    frames = await bench.lawful()
    assert ends(frames) == [row.outcome, "completed"]
    assert uses(blocks) == [row.result]
    assert statuses(frames) == {"a": row.result[0]}
    assert [frame["data"]["result"] for frame in of(frames, "tool.result")] == [row.result[1]]
    [told] = [frame for frame in of(frames, "debugger.pause") if frame["id"] == pause.pause_id]
    data = told["data"]
    assert data["phase"] == ("after_tools" if row.kind == "step after" else "after_inference")
    assert data["onTimeout"] == ("deny" if row.kind == "approval" else "continue")
    assert data["deadlineMs"] == pause.since_ms + (300_000 if row.kind == "approval" else 30_000)
    [over] = [frame for frame in of(frames, "debugger.resumed") if frame["id"] == pause.pause_id]
    assert (over["data"]["decision"], over["data"]["by"]) == (row.decision, row.by)
    assert over["at_ms"] - told["at_ms"] == pytest.approx(row.after * 1000, abs=10)
    with pytest.raises(AlreadyDecided, match=f"{row.decision} by {row.by}"):
        await bench.decide(pause, "continue")


async def test_what_an_inference_waits_for_people_is_not_its_own_time():
    notes = Notes(requires_approval=True)
    calls = [[call("double", f"c{n}", number=n)] for n in range(4)]
    bench = Bench(model(*calls, [Sleep(61)]), tools=[notes.tool], timeout=60)
    await bench.ask("one")
    for _ in range(4):
        pause = await bench.paused()
        await asyncio.sleep(200)
        await bench.decide(pause, "continue")
    began = asyncio.get_running_loop().time()
    await bench.idle()
    assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=1)
    await bench.next_request()
    frames = await bench.lawful()
    assert notes.ran == [0, 1, 2, 3]
    assert ends(frames) == ["failed", "completed"]
    assert "60 seconds" in of(frames, "inference.finished")[0]["data"]["error"]


async def test_a_call_that_was_edited_and_then_stopped_is_in_the_history_as_it_ran():
    ran: list[int] = []

    @tool
    async def wait(number: int) -> str:
        ran.append(number)
        await asyncio.sleep(number)
        return f"waited {number}"

    asked = [call("wait", "a", number=1), call("wait", "b", number=60)]
    bench = Bench(model(asked), tools=[wait])
    await bench.manager.open(CONV, owner=ANNA, profile=None)
    await bench.manager.set_step_mode(CONV, True, by="anna")
    await bench.ask("one")
    pause = await bench.paused()
    await bench.decide(pause, "edit", edits={"a": {"number": 2}})
    await asyncio.sleep(3)
    await bench.cancel()
    blocks = await bench.next_request()
    assert ends(await bench.lawful()) == ["cancelled", "completed"]
    assert ran == [2, 60]
    assert [b.arguments for b in blocks if isinstance(b, ToolCall)] == [
        {"number": 2},
        {"number": 60},
    ]
    assert uses(blocks) == [("success", "waited 2"), ("cancelled", CANCELLED)]


# Approvals


class Meddling(DefaultToolExecutor):
    """Changes the arguments between a person's word and the call."""

    meddles = False

    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        if self.meddles:
            assert isinstance(arguments, dict)
            arguments["number"] = 1000


async def test_an_approval_is_for_exactly_the_arguments_that_were_shown():
    notes, executor = Notes(requires_approval=True), Meddling()
    bench = Bench(model([call("double", "a", number=1)]), tools=[notes.tool], executor=executor)
    await bench.ask("one")
    pause = await bench.paused()
    executor.meddles = True
    await bench.decide(pause, "continue")
    blocks = await bench.next_request()
    assert notes.ran == []
    assert uses(blocks) == [("denied", "Its arguments changed after it was agreed to.")]
    assert not of(await bench.lawful(), "tool.delta"), "its execution was never told"


async def test_an_approval_is_used_once():
    notes = Notes(requires_approval=True)
    same = call("double", "a", number=1)
    bench = Bench(model([same], [same]), tools=[notes.tool])
    await bench.ask("one")
    first = await bench.paused()
    await bench.decide(first, "continue")
    second = await bench.paused()
    assert second.pause_id != first.pause_id
    assert notes.ran == [1]
    await bench.decide(second, "skip", message="once is enough")
    blocks = await bench.next_request()
    assert notes.ran == [1]
    assert uses(blocks) == [("success", "2"), ("skipped", "once is enough")]


async def test_an_approval_that_comes_late_changes_nothing():
    notes = Notes(requires_approval=True)
    bench = Bench(model([call("double", "a", number=1)]), tools=[notes.tool])
    await bench.ask("one")
    pause = await bench.paused()
    await bench.idle()
    with pytest.raises(AlreadyDecided, match="timeout by timeout"):
        await bench.decide(pause, "continue")
    blocks = await bench.next_request()
    assert notes.ran == []
    assert uses(blocks) == [NOBODY]


async def test_of_two_decisions_at_once_one_wins_and_the_other_is_told_which():
    notes = Notes(requires_approval=True)
    bench = Bench(model([call("double", "a", number=1)]), tools=[notes.tool])
    await bench.ask("one")
    pause = await bench.paused()
    said: list[tuple[PersonDecision, str]] = [("skip", "anna"), ("continue", "b"), ("abort", "c")]
    answers = await asyncio.gather(
        *(bench.manager.decide(CONV, pause.pause_id, decision, by=by) for decision, by in said),
        return_exceptions=True,
    )
    assert [getattr(answer, "by", None) for answer in answers] == ["anna", None, None]
    assert [str(answer) for answer in answers[1:]] == ["this pause ended already: skip by anna"] * 2
    with pytest.raises(UnknownPause):
        await bench.manager.decide(CONV, "another", "continue", by="bert")
    await bench.next_request()
    [over] = of(await bench.lawful(), "debugger.resumed")
    assert (over["data"]["decision"], over["data"]["by"]) == ("skip", "anna")
    assert notes.ran == []


async def test_an_edit_that_makes_an_approval_needed_is_asked_about_again():
    risky = Notes(requires_approval=lambda arguments: arguments["number"] > 10)
    bench = Bench(
        model([call("double", "a", number=1), call("double", "b", number=2)]), tools=[risky.tool]
    )
    await bench.manager.open(CONV, owner=ANNA, profile=None)
    await bench.manager.set_step_mode(CONV, True, by="anna")
    await bench.ask("one")
    step = await bench.paused()
    assert not step.request.approval
    await bench.decide(step, "edit", edits={"a": {"number": 1000}})
    approval = await bench.paused()
    assert approval.request.approval
    [asked] = approval.request.extra["toolCalls"]
    assert (asked["id"], asked["input"]) == ("a", {"number": 1000})
    assert risky.ran == []
    await bench.manager.set_step_mode(CONV, False, by="anna")
    await bench.idle()
    assert risky.ran == [2]
    assert uses(await bench.next_request()) == [NOBODY, ("success", "4")]


async def test_who_approves_may_edit_what_needs_it():
    risky = Notes(requires_approval=lambda arguments: arguments["number"] > 10)
    bench = Bench(model([call("double", "a", number=11)]), tools=[risky.tool])
    await bench.ask("one")
    approval = await bench.paused()
    await bench.decide(approval, "edit", edits={"a": {"number": 12}})
    await bench.idle()
    assert risky.ran == [12]


# Identity that an app puts in


async def who_asks(call: PreparedCall, context: ToolContext) -> Arguments:
    return {**call.arguments, "account": f"account-of-{context.owner}"}


@tool
async def balance(account: str = "", year: int = 2026) -> str:
    return f"{account} has 7 in {year}"


async def test_what_an_app_puts_into_a_call_is_in_no_frame_and_not_in_the_history():
    asked = ToolCall(call_id="a", name="balance", arguments={"account": "somebody-else"})
    bench = Bench(
        model([asked]), tools=[balance], executor=DefaultToolExecutor(pre_execute=[who_asks])
    )
    await bench.manager.open(CONV, owner=ANNA, profile=None)
    await bench.manager.set_step_mode(CONV, True, by="anna")
    await bench.ask("one")
    pause = await bench.paused()
    [shown] = pause.request.extra["toolCalls"]
    assert shown["input"] == {"account": MASK}
    edits = {"a": {"account": MASK, "year": 2027}}
    await bench.decide(pause, "edit", edits=edits)
    await bench.manager.set_step_mode(CONV, False, by="anna")
    blocks = await bench.next_request()
    frames = await bench.lawful()
    [patch] = [frame["data"]["patch"] for frame in of(frames, "tool.delta")]
    assert patch["input"] == {"account": MASK, "year": 2027}
    assert uses(blocks) == [("success", f"{MASK} has 7 in 2027")]
    assert "account-of-" not in f"{frames}{blocks}"


async def test_a_hook_that_writes_into_the_arguments_does_not_change_the_history():
    async def write(call: PreparedCall, context: ToolContext) -> None:
        call.arguments["account"] = "account-of-anna"  # type: ignore[index] # it is a dict

    bench = Bench(
        model([call("balance", "a")]),
        tools=[balance],
        executor=DefaultToolExecutor(pre_execute=[write]),
    )
    await bench.ask("one")
    blocks = await bench.next_request()
    assert uses(blocks) == [("success", f"{MASK} has 7 in 2026")]
    assert [block.arguments for block in blocks if isinstance(block, ToolCall)] == [{}]
    assert "account-of-" not in f"{await bench.lawful()}"
