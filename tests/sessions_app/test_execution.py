"""A handle on one running inference: ask for its end, wait for it, look at it."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.execution import ExecutionHandle
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.turns import Turn, TurnMetadata, User
from sessions_app.testing import Gate, IgnoreCancel, RecordingSink, ScriptedEngine, Step

pytestmark = pytest.mark.virtual


def start(*steps: Step, sink: RecordingSink | None = None) -> ExecutionHandle:
    turn = Turn(blocks=(User(text="hi"),), metadata=TurnMetadata(session_id="s", inference_id="i"))
    runner = InferenceRunner(ScriptedEngine(*steps), cancel_grace=5)

    async def execute(cancellation: Cancellation) -> Turn:
        return await runner.run(turn, sink=sink or RecordingSink(), cancellation=cancellation)

    return ExecutionHandle(execute, inference_id="i", turn_id=turn.id)


async def test_it_runs_until_its_end_and_then_tells_the_outcome():
    gate = Gate("middle")
    handle = start(gate)
    await gate.reached()
    assert (handle.is_running, handle.outcome) == (True, None)
    gate.open()
    await handle.wait()
    assert (handle.is_running, handle.outcome) == (False, "completed")


async def test_any_number_may_wait_and_all_get_the_same_turn():
    gate = Gate("middle")
    handle = start(gate)
    waiters = [asyncio.create_task(handle.wait()) for _ in range(5)]
    await gate.reached()
    gate.open()
    turns = await asyncio.gather(*waiters)
    assert all(turn is turns[0] for turn in turns)
    assert await handle.wait() is turns[0]


async def test_a_waiter_that_goes_away_does_not_end_the_inference():
    gate = Gate("middle")
    handle = start(gate)
    waiter = asyncio.create_task(handle.wait())
    await gate.reached()
    waiter.cancel()
    await asyncio.wait({waiter})
    assert handle.is_running
    gate.open()
    await handle.wait()
    assert handle.outcome == "completed"


async def test_cancel_returns_at_once_and_may_be_called_again():
    gate = Gate("stubborn")
    handle = start(IgnoreCancel(gate))
    await gate.reached()
    assert handle.cancel()
    assert handle.cancel()
    assert handle.is_running
    gate.open()
    await handle.wait()
    assert handle.outcome == "cancelled"


async def test_cancel_before_the_first_step_ends_it_as_cancelled():
    handle = start(Gate("never"))
    assert handle.cancel()
    await handle.wait()
    assert handle.outcome == "cancelled"


async def test_cancel_after_the_end_is_refused():
    handle = start()
    await handle.wait()
    assert not handle.cancel()
    assert handle.outcome == "completed"


async def test_cancel_while_the_end_is_written_is_refused_and_wait_tells_which_end():
    writing = Gate("flush")
    handle = start(sink=RecordingSink(flush_gate=writing))
    await writing.reached()
    assert handle.is_running
    assert not handle.cancel()
    writing.open()
    assert (await handle.wait()).metadata.outcome == "completed"


async def test_a_failed_inference_is_an_outcome_and_no_exception():
    handle = start(RuntimeError("no"))
    assert (await handle.wait()).metadata.outcome == "failed"
    assert handle.outcome == "failed"


async def test_its_task_is_named_after_the_inference():
    gate = Gate("middle")
    start(gate)
    await gate.reached()
    assert "inference:i" in {task.get_name() for task in asyncio.all_tasks()}
    gate.open()
