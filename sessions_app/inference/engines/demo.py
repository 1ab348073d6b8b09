"""DemoEngine: the default model. Scripted, offline, the same every time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ..errors import InferenceFailed
from ..events import (
    ModelCallFinished,
    TextDelta,
    ThinkingDelta,
    ThinkingSummary,
    Usage,
    publish,
)
from ..tools import offered
from ..turns import Block, LlmText, Reasoning, System, ToolCall, ToolUse, Turn, User
from .demo_acts import Asked
from .demo_scripts import Script, choose, pieces_of

PACE = 0.02
"""Seconds between two pieces of an answer."""


class DemoEngine:
    """Plays the script that fits the last prompt. Holds no state: share one between sessions.

    It calls tools that are offered where its script needs them, whatever the tool choice. Its usage
    counts words, since it has no tokens: those of the transcript, and those it wrote.
    """

    model = "demo"

    def __init__(self, *, pace: float = PACE) -> None:
        self._pace = pace

    async def infer(self, turn: Turn) -> Turn:
        """Raises InferenceFailed where the script says so. Cancelling is safe at any moment."""
        script = choose(turn, offered())
        if script.silent:
            await asyncio.Event().wait()
        said: list[Block] = []
        part: Script | None = script
        while part is not None:
            await self._perform(part)
            said.append(Reasoning(text=part.thinking, provider=self.model))
            said.append(LlmText(text="".join(part.pieces)))
            part = part.then
        if script.failure is not None:
            raise InferenceFailed(script.failure)
        publish(
            ModelCallFinished(
                stop_reason="tool_calls" if script.calls else "stop",
                usage=Usage(input_tokens=_words_in(turn.blocks), output_tokens=_words_in(said)),
            )
        )
        return turn.with_blocks(*said, *_calls(turn, script.calls))

    async def _perform(self, script: Script) -> None:
        for piece in pieces_of(script.thinking):
            publish(ThinkingDelta(piece))
            await asyncio.sleep(self._pace)
        for event in script.events:
            publish(event)
            await asyncio.sleep(self._pace)
        pause = self._pace if script.pause is None else script.pause
        for piece in script.pieces:
            publish(TextDelta(piece))
            await asyncio.sleep(pause)
        if script.summary:
            publish(ThinkingSummary(script.summary))


def _calls(turn: Turn, asked: tuple[Asked, ...]) -> list[Block]:
    """The calls, counted through the conversation so that the same one has the same ids."""
    made = sum(isinstance(block, ToolCall) for block in turn.blocks)
    return [
        ToolCall(
            call_id=f"demo_{number}",
            name=call.name,
            arguments=call.arguments if isinstance(call.arguments, str) else dict(call.arguments),
        )
        for number, call in enumerate(asked, start=made + 1)
    ]


def _words_in(blocks: Iterable[Block]) -> int:
    return sum(
        len(block.text.split())
        for block in blocks
        if isinstance(block, System | User | LlmText | Reasoning | ToolUse)
    )
