"""Block ordering: from whatever a history holds to a transcript that every provider accepts.

The strictest rule we know is Anthropic's: each call is answered at the beginning of the message
that follows it, an answer has its call right before it, and no two calls share an id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ..engine import Infer, Middleware
from ..executor import CANCELLED
from ..turns import Block, Other, System, ToolCall, ToolUse, Turn

UNMATCHED = "unmatched_tool_use"
"""The name of the block that keeps a result no call asked for. No provider is sent it."""


def block_ordering() -> Middleware:
    """Shows the model the turn `ordered`."""

    def middleware(infer: Infer) -> Infer:
        async def with_ordered_blocks(turn: Turn) -> Turn:
            return await infer(ordered(turn))

        return with_ordered_blocks

    return middleware


def ordered(turn: Turn) -> Turn:
    """System blocks first, and each run of calls followed by all its results in call order.

    Nothing is lost or doubled: a result that no call asked for, or a second one for the same call,
    becomes an `Other` block in its place; a call without a result gets one that says its outcome
    is unknown; a repeated id is replaced, in the call and its result. Pure and idempotent.
    """
    blocks = _under_ids_of_their_own(turn.blocks)
    results = _results(blocks)
    system = [block for block in blocks if isinstance(block, System)]
    rest = _in_order((block for block in blocks if not isinstance(block, System)), results)
    return msgspec.structs.replace(turn, blocks=(*system, *rest))


def _in_order(blocks: Iterable[Block], results: dict[str, ToolUse]) -> Iterator[Block]:
    run: list[ToolCall] = []
    for block in blocks:
        if isinstance(block, ToolCall):
            run.append(block)
            yield block
            continue
        # A result ends a run too: the call after it was made with that result known.
        yield from _answers(run, results)
        run.clear()
        if not isinstance(block, ToolUse):
            yield block
        elif results.get(block.call_id) is not block:
            yield _unmatched(block)
    yield from _answers(run, results)


def _answers(run: Sequence[ToolCall], results: dict[str, ToolUse]) -> Iterator[ToolUse]:
    for call in run:
        # The id is derived, so that the same turn is always ordered into the same one.
        missing = ToolUse(
            id=f"{call.id}:result", call_id=call.call_id, text=CANCELLED, status="cancelled"
        )
        yield results.get(call.call_id, missing)


def _results(blocks: Sequence[Block]) -> dict[str, ToolUse]:
    """The first result of each call that there is."""
    calls = {block.call_id for block in blocks if isinstance(block, ToolCall)}
    results: dict[str, ToolUse] = {}
    for block in blocks:
        if isinstance(block, ToolUse) and block.call_id in calls:
            results.setdefault(block.call_id, block)
    return results


def _unmatched(use: ToolUse) -> Other:
    props: dict[str, object] = {"call_id": use.call_id, "status": use.status, "text": use.text}
    return Other(id=use.id, name=UNMATCHED, props=props)


def _under_ids_of_their_own(blocks: Sequence[Block]) -> Sequence[Block]:
    """The blocks with no two calls under one id. What the provider calls them is the engine's.

    The n-th result of a repeated id belongs to its n-th call.
    """
    ids = _Ids([block for block in blocks if isinstance(block, ToolCall)])
    owned = [ids.own(block) if isinstance(block, ToolCall) else block for block in blocks]
    return [ids.follow(block) if isinstance(block, ToolUse) else block for block in owned]


class _Ids:
    """Which ids calls were given. Keeps those that are their call's alone."""

    def __init__(self, calls: Sequence[ToolCall]) -> None:
        self._taken = {call.call_id for call in calls}
        self._given: dict[str, deque[str]] = {}

    def own(self, call: ToolCall) -> ToolCall:
        """The call under an id that no call before it has."""
        before = self._given.setdefault(call.call_id, deque())
        repeated = bool(before) or not call.call_id
        before.append(self._fresh(call.call_id) if repeated else call.call_id)
        return msgspec.structs.replace(call, call_id=before[-1])

    def follow(self, use: ToolUse) -> ToolUse:
        """The result under the id that its call has now."""
        given = self._given.get(use.call_id)
        return msgspec.structs.replace(use, call_id=given.popleft()) if given else use

    def _fresh(self, stem: str) -> str:
        number = 2
        while (name := f"{stem or 'call'}_{number}") in self._taken:
            number += 1
        self._taken.add(name)
        return name
