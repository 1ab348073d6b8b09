"""A tool that does nothing but ask first: the demo agent shows an approval with it."""

from __future__ import annotations

from .events import Log, publish
from .tools import tool


@tool(requires_approval=True)
async def demo_send_note(text: str) -> str:
    """Leave a short note in the conversation's log. A person is asked before it is left."""
    publish(Log(message=f"Note: {text[:200]}"))
    return "The note was left."
