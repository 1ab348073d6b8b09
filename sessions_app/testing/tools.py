"""A tool that waits for the test, and a call of a tool by itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..inference.events import publishing_to
from ..inference.executor import DefaultToolExecutor, ToolExecutor, ToolResult, ToolRun
from ..inference.tools import Arguments, Tool, ToolContext, ToolRegistry
from ..inference.turns import ToolCall
from .engine import Gate
from .sink import RecordingSink


class GatedTool:
    """A tool that notes what it is called with, and waits at its gate before it does its work.

    `tool` takes the place of the one it was made of: same name, arguments and options. A sync
    function is called in the event loop.
    """

    def __init__(self, inner: Tool) -> None:
        self.gate = Gate(inner.name)
        self.calls: list[dict[str, Any]] = []
        self.tool = replace(inner, call=self._call, is_async=True)
        self._inner = inner

    async def _call(self, arguments: Arguments, context: ToolContext) -> object:
        self.calls.append(dict(arguments))
        await self.gate.passed()
        value = self._inner.call(arguments, context)
        return await value if inspect.isawaitable(value) else value


async def run_tool(
    tool: Tool,
    arguments: Mapping[str, Any] | str | None = None,
    *,
    user: object | None = None,
    owner: str = "visitor:test",
    executor: ToolExecutor | None = None,
    sink: RecordingSink | None = None,
) -> ToolResult:
    """What the model would read of one call: checked, authorised, bounded, without its secrets.

    `arguments` that are text are what a model wrote that is no JSON object. `sink` is told what the
    call publishes. No approval is asked for: that is the loop's.
    """
    run = ToolRun(
        registry=ToolRegistry([tool]),
        session_id="test",
        inference_id="test",
        owner=owner,
        user=user,
        ensure_running=lambda: None,
    )
    given = arguments if isinstance(arguments, str) else dict(arguments or {})
    executor = executor or DefaultToolExecutor()
    with publishing_to(sink or RecordingSink()):
        call = ToolCall(call_id="call_1", name=tool.name, arguments=given)
        prepared = await executor.prepare(call, run)
        if isinstance(prepared, ToolResult):
            return prepared
        [result] = await executor.execute([prepared], run)
    return result
