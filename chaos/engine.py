"""The engine and the tools of the harness's servers: a prompt says what they do."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec

from sessions_app.inference.events import ModelCallFinished, TextDelta, publish
from sessions_app.inference.tools import ToolContext, tool
from sessions_app.inference.turns import LlmText, ToolCall, ToolUse, Turn, User


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: so many pieces, `every` so many seconds, after a call of `tool` if it has one.

    The tool is told `word`, and gives it back.
    """

    pieces: int
    every: float
    tool: str = ""
    word: str = ""

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()


class ChaosEngine:
    """An Engine. `model` is what follows the colon of its name, and says nothing."""

    def __init__(self, model: str) -> None:
        self.model = f"chaos:{model}"

    async def infer(self, turn: Turn) -> Turn:
        prompts = [at for at, block in enumerate(turn.blocks) if isinstance(block, User)]
        prompt = turn.blocks[prompts[-1]]
        assert isinstance(prompt, User)
        orders = msgspec.json.decode(prompt.text, type=Orders)
        called = any(isinstance(block, ToolUse) for block in turn.blocks[prompts[-1] :])
        if orders.tool and not called:
            call = ToolCall(call_id=str(uuid4()), name=orders.tool, arguments={"word": orders.word})
            publish(ModelCallFinished(stop_reason="tool_calls"))
            return turn.with_blocks(call)
        said = []
        for number in range(orders.pieces):
            said.append(f"{number} ")
            publish(TextDelta(said[-1]))
            await asyncio.sleep(orders.every)
        publish(ModelCallFinished())
        return turn.with_blocks(LlmText(text="".join(said)))


@tool
async def look(word: str, context: ToolContext) -> str:
    """Take a moment, and tell of it in a burst."""
    for number in range(20):
        context.progress(number / 20)
    await asyncio.sleep(0.05)
    return word


@tool(requires_approval=True)
async def act(word: str) -> str:
    """Do what a person must have allowed."""
    await asyncio.sleep(0.05)
    return word
