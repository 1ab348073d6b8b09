"""An owner that is killed in a tool, or while a person is asked: nothing of it runs again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from uuid import uuid4

import pytest

from sessions_app.inference.errors import AlreadyDecided, UnknownPause
from sessions_app.inference.tools import tool
from sessions_app.inference.turns import ToolCall, ToolUse
from sessions_app.testing import GatedTool, ScriptedEngine
from sessions_app.values import PromptRequest
from tests.cluster.processes import PATIENCE, Process
from tests.moments.bench import ends, of
from tests.rules import Frame, broken_rules

CALL = ToolCall(call_id="call_1", name="pay", arguments={"amount": 7})


@tool
def pay(amount: int) -> str:
    """Pays so much."""
    return f"{amount} paid"


@tool(name="pay", requires_approval=True)
def pay_if_allowed(amount: int) -> str:
    """Pays so much, when somebody has agreed."""
    return f"{amount} paid"


@pytest.fixture
def killed_at_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def frames_of(process: Process, conv: str) -> list[Frame]:
    written = await process.store.window(conv)
    return [json.loads(entry.text)["event"] for entry in written]


def frames_until(process: Process, conv: str, kind: str) -> list[Frame]:
    """All that was said, once something of that kind was."""
    deadline = monotonic() + PATIENCE
    while not of(frames := process.run(frames_of(process, conv)), kind):
        assert monotonic() < deadline, f"no {kind} after {[frame['type'] for frame in frames]}"
    return frames


def test_a_tool_that_had_begun_is_not_called_again(redis_url: str, killed_at_the_end: ExitStack):
    conv, begun, again = str(uuid4()), GatedTool(pay), GatedTool(pay)
    dead = Process(redis_url, str(uuid4()), ScriptedEngine([CALL]), tools=[begun.tool])
    request = PromptRequest(owner="visitor:anna", prompt="pay", conv_id=conv)
    dead.run(dead.sessions.submit(request))
    dead.run(asyncio.wait_for(begun.gate.reached(), PATIENCE))
    frames_until(dead, conv, "tool.start")
    dead.kill()

    engine = ScriptedEngine("Done.")
    heir = Process(redis_url, str(uuid4()), engine, tools=[again.tool])
    killed_at_the_end.callback(heir.leave)
    frames = frames_until(heir, conv, "inference.finished")
    heir.run(heir.sessions.submit(PromptRequest(owner="visitor:anna", prompt="so?", conv_id=conv)))
    deadline = monotonic() + PATIENCE
    while len(ends(frames)) < 2:
        assert monotonic() < deadline, ends(frames)
        frames = heir.run(frames_of(heir, conv))

    assert ends(frames) == ["lost", "completed"]
    assert (begun.calls, again.calls) == ([{"amount": 7}], [])
    assert [frame["data"] for frame in of(frames, "tool.done")] == [{"status": "cancelled"}]
    assert not broken_rules(frames)
    [told] = [block for block in engine.turns[-1].blocks if isinstance(block, ToolUse)]
    assert "the outcome is unknown" in told.text


def test_an_approval_that_was_asked_for_is_void(redis_url: str, killed_at_the_end: ExitStack):
    conv, asked, again = str(uuid4()), GatedTool(pay_if_allowed), GatedTool(pay_if_allowed)
    dead = Process(redis_url, str(uuid4()), ScriptedEngine([CALL]), tools=[asked.tool])
    request = PromptRequest(owner="visitor:anna", prompt="pay", conv_id=conv)
    dead.run(dead.sessions.submit(request))
    [pause] = of(frames_until(dead, conv, "debugger.pause"), "debugger.pause")
    dead.kill()

    heir = Process(redis_url, str(uuid4()), ScriptedEngine("Done."), tools=[again.tool])
    killed_at_the_end.callback(heir.leave)
    frames = frames_until(heir, conv, "inference.finished")
    with pytest.raises((AlreadyDecided, UnknownPause)):
        heir.run(heir.sessions.decide(conv, pause["id"], "continue", by="visitor:anna"))

    assert ends(frames) == ["lost"]
    assert (asked.calls, again.calls) == ([], [])
    assert not broken_rules(frames)
