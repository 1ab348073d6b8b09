"""Our settings with an agent whose code does what it may not, as the prompt asks."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

from sessions_app.inference.events import ModelCallFinished, TextDelta, publish
from sessions_app.inference.tools import tool
from sessions_app.inference.turns import LlmText, ToolCall, ToolUse, Turn, User
from webchat_project.settings import *  # noqa: F403 - a settings module is all its names
from webchat_project.settings import WEBCHAT


@tool(timeout=1)
def stuck() -> str:
    """Never returns from its thread."""
    threading.Event().wait()
    return ""


class StubbornEngine:
    def __init__(self, model: str) -> None:
        self.model = f"stubborn:{model}"

    async def infer(self, turn: Turn) -> Turn:
        publish(TextDelta("well"))
        asked = next(block for block in reversed(turn.blocks) if isinstance(block, User)).text
        match asked.split():
            case ["block", seconds]:
                await asyncio.sleep(0.1)  # for the word to go out
                time.sleep(float(seconds))  # noqa: ASYNC251 - the very thing it may not do
            case ["swallow"]:
                while True:
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(3600)
            case ["stuck"] if not isinstance(turn.blocks[-1], ToolUse):
                publish(ModelCallFinished(stop_reason="tool_calls"))
                call = ToolCall(call_id="", name="stuck", arguments={})
                return turn.with_blocks(LlmText(text="well"), call)
        publish(ModelCallFinished())
        return turn.with_blocks(LlmText(text="well"))


WEBCHAT = {
    **WEBCHAT,
    "ENGINES": {"stubborn": "tests.standins.stubborn.StubbornEngine"},
    "TOOLS": ["tests.standins.stubborn.stuck"],
    "PROFILES": [{"slug": "default", "model": "stubborn:mule", "tools": ["stuck"]}],
}
