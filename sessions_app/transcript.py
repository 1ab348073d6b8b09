"""Turns as people may read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from .inference.tools import ToolRegistry
from .inference.turns import Block, Other, Reasoning, ToolCall, Turn


def last(turns: Sequence[Turn], count: int) -> tuple[Turn, ...]:
    """The last `count` turns, which may be none."""
    return tuple(turns[max(0, len(turns) - count) :])


def readable(turns: Iterable[Turn], tools: ToolRegistry) -> tuple[Turn, ...]:
    """The turns with declared secrets masked, and without what only a provider understands.

    Turns share their blocks, so each block is looked at once.
    """
    return _each_block(turns, lambda block: _readable(block, tools))


def masked(turns: Iterable[Turn], tools: ToolRegistry) -> tuple[Turn, ...]:
    """The turns with declared secrets masked, and whole otherwise."""
    return _each_block(turns, lambda block: _masked(block, tools))


def _each_block(turns: Iterable[Turn], change: Callable[[Block], Block]) -> tuple[Turn, ...]:
    seen: dict[int, Block] = {}

    def of(block: Block) -> Block:
        changed = seen.get(id(block))
        if changed is None:
            changed = seen[id(block)] = change(block)
        return changed

    return tuple(
        msgspec.structs.replace(turn, blocks=tuple(of(block) for block in turn.blocks))
        for turn in turns
    )


def _masked(block: Block, tools: ToolRegistry) -> Block:
    if not isinstance(block, ToolCall):
        return block
    return msgspec.structs.replace(block, arguments=tools.shown(block.name, block.arguments))


def _readable(block: Block, tools: ToolRegistry) -> Block:
    match block:
        case ToolCall():
            return _masked(block, tools)
        case Reasoning():
            return msgspec.structs.replace(block, signature=None)
        case Other():
            return msgspec.structs.replace(block, props={})
        case _:
            return block
