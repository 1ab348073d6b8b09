"""A gated tool is the tool it was made of, and waits; `run_tool` reads what a model would."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.inference.errors import ToolDenied
from sessions_app.inference.events import ToolCallStarted, ToolProgress
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.tools import MASK, Arguments, Tool, ToolContext, tool
from sessions_app.testing import GatedTool, RecordingSink, run_tool


@tool(secrets={"pin"}, timeout=60)
def pay(amount: int, context: ToolContext, pin: str = "") -> str:
    """Pays."""
    context.progress(0.5, f"paying with {pin}")
    return f"{context.user or context.owner} paid {amount} with {pin}"


@pytest.mark.virtual
async def test_a_gated_tool_waits_and_then_does_its_work():
    gated = GatedTool(pay)
    running = asyncio.create_task(run_tool(gated.tool, {"amount": 7}, user="anna"))
    await gated.gate.reached()
    assert not running.done()
    gated.gate.open()

    assert (await running).text.startswith("anna paid 7")
    assert gated.calls == [{"amount": 7}]
    assert gated.tool.parameters == pay.parameters


@pytest.mark.virtual
async def test_a_gated_tool_that_nobody_opens_is_late_as_the_tool_itself_would_be():
    assert (await run_tool(GatedTool(pay).tool, {"amount": 7})).status == "timeout"


async def test_a_call_is_checked_its_secrets_masked_and_what_it_publishes_told():
    sink = RecordingSink()
    result = await run_tool(pay, {"amount": 7, "pin": "1234"}, sink=sink)

    assert result.text == f"visitor:test paid 7 with {MASK}"
    assert sink.events[0] == ToolCallStarted(call_id="call_1", input={"amount": 7, "pin": MASK})
    assert any(isinstance(event, ToolProgress) for event in sink.events)


@pytest.mark.parametrize("arguments", [{"amount": "much"}, {}, {"amount": 1, "tip": 1}, "{"])
async def test_arguments_that_do_not_fit_are_a_result(arguments: dict[str, object] | str):
    assert (await run_tool(pay, arguments)).status == "error"


async def test_the_executor_is_the_apps_own():
    class Closed(DefaultToolExecutor):
        async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
            raise ToolDenied("The shop is closed.")

    result = await run_tool(pay, {"amount": 1}, executor=Closed())
    assert (result.status, result.text) == ("denied", "The shop is closed.")
