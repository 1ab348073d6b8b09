"""Turns as people may read them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .inference.tools import ToolRegistry
from .inference.turns import Block, Other, Reasoning, ToolCall, Turn


def readable(turns: Iterable[Turn], tools: ToolRegistry) -> tuple[Turn, ...]:
    """The turns with declared secrets masked, and without what only a provider understands.

    Turns share their blocks, so each block is looked at once.
    """
    seen: dict[int, Block] = {}

    def of(block: Block) -> Block:
        shown = seen.get(id(block))
        if shown is None:
            shown = seen[id(block)] = _readable(block, tools)
        return shown

    return tuple(
        msgspec.structs.replace(turn, blocks=tuple(of(block) for block in turn.blocks))
        for turn in turns
    )


def _readable(block: Block, tools: ToolRegistry) -> Block:
    match block:
        case ToolCall(name=name, arguments=arguments):
            tool = tools.get(name)
            if tool is None or not tool.secrets:
                return block
            return msgspec.structs.replace(block, arguments=tool.shown(arguments))
        case Reasoning():
            return msgspec.structs.replace(block, signature=None)
        case Other():
            return msgspec.structs.replace(block, props={})
        case _:
            return block
