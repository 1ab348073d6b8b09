"""Tools that do no work: the demo agent shows with them what can become of a call."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from msgspec import Meta

from .errors import ToolDenied
from .events import Log, publish
from .tools import ToolContext, tool

STEPS = 10
STEP_SECONDS = 0.3
HUGE_LINES = 4000


@tool(requires_approval=True)
async def demo_send_note(text: str) -> str:
    """Leave a short note in the conversation's log. A person is asked before it is left."""
    publish(Log(message=f"Note: {text[:200]}"))
    return "The note was left."


@tool(timeout=5)
async def demo_task(
    kind: Annotated[
        Literal["progress", "huge", "broken", "slow", "forbidden"],
        Meta(description="what becomes of the call"),
    ],
    context: ToolContext,
) -> str:
    """Show what can become of a call: this does no work, and is for demonstrations only."""
    match kind:
        case "progress":
            for step in range(1, STEPS + 1):
                await asyncio.sleep(STEP_SECONDS)
                context.progress(step / STEPS, f"step {step} of {STEPS}")
            return "All steps are done."
        case "huge":
            return "".join(
                f"line {number} of {HUGE_LINES}\n" for number in range(1, HUGE_LINES + 1)
            )
        case "broken":
            raise RuntimeError("the demo tool is broken, as it was told to be")
        case "slow":
            await asyncio.Event().wait()
        case "forbidden":
            raise ToolDenied("Nobody may do this: it is here to be refused.")
    raise AssertionError(kind)
