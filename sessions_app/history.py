"""What a conversation that an app kept says again, so that people see what the model remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias
from uuid import NAMESPACE_OID, uuid5

from .inference.events import (
    Event,
    InferenceFinished,
    InferenceStarted,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    PromptTaken,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolCallRequested,
)
from .inference.runner import NO_ANSWERS
from .inference.turns import Block, LlmText, Outcome, Reasoning, ToolCall, ToolUse, Turn, User

Told: TypeAlias = Sequence[Event]


def retold(turns: Sequence[Turn], *, profile: str) -> Iterator[tuple[Origin, Told]]:
    """The events of each inference again, as far as the turns know them.

    The last turn holds all blocks. The others, where they were kept, name the inferences of theirs;
    one that nobody names gets an id made of its prompt's. Models, times and errors are not known.
    """
    if not turns:
        return
    named = {prompt.id: turn for turn in turns if (prompt := _prompt(turn)) is not None}
    for prompt, blocks in _inferences(turns[-1].blocks):
        turn = named.get(prompt.id)
        inference_id = turn.metadata.inference_id if turn is not None else None
        origin = Origin(
            inference_id=inference_id or str(uuid5(NAMESPACE_OID, f"inference {prompt.id}")),
            turn_id=turn.id if turn is not None else str(uuid5(NAMESPACE_OID, f"turn {prompt.id}")),
            retold=True,
        )
        outcome = turn.metadata.outcome if turn is not None else None
        yield origin, tuple(_told(prompt, blocks, origin, outcome, profile))


def _prompt(turn: Turn) -> User | None:
    """The prompt that made the turn."""
    return next((block for block in reversed(turn.blocks) if isinstance(block, User)), None)


def _inferences(blocks: Sequence[Block]) -> Iterator[tuple[User, Sequence[Block]]]:
    """Each prompt with what came after it."""
    prompts = [place for place, block in enumerate(blocks) if isinstance(block, User)]
    for place, end in pairwise([*prompts, len(blocks)]):
        prompt = blocks[place]
        assert isinstance(prompt, User)
        yield prompt, blocks[place + 1 : end]


def _told(
    prompt: User, blocks: Sequence[Block], origin: Origin, outcome: Outcome | None, profile: str
) -> Iterator[Event]:
    yield PromptTaken(
        message_id=prompt.id, content=prompt.text, turn_id=origin.turn_id, idempotency_key=""
    )
    yield InferenceStarted(
        inference_id=origin.inference_id,
        turn_id=origin.turn_id,
        profile=profile,
        model="",
        idempotency_key="",
    )
    stopped = False
    in_call = False
    for block in blocks:
        if isinstance(block, LlmText) and block.text in NO_ANSWERS:
            stopped = block.stopped
        elif isinstance(block, LlmText | Reasoning):
            if not in_call:
                yield ModelCallStarted(message_id=block.id, model="")
                in_call = True
            stopped = isinstance(block, LlmText) and block.stopped
            yield TextDelta(block.text) if isinstance(block, LlmText) else ThinkingDelta(block.text)
        elif isinstance(block, ToolCall):
            if in_call:
                yield ModelCallFinished(stop_reason="tool_calls")
                in_call = False
            yield ToolCallRequested(call_id=block.call_id, name=block.name, input=block.arguments)
        elif isinstance(block, ToolUse):
            yield ToolCallFinished(
                call_id=block.call_id, result=block.text, status=block.status, duration_ms=0
            )
    # A text that is still open is closed by the end, with the end's status.
    if in_call and not stopped:
        yield ModelCallFinished()
    status: Outcome = outcome or ("cancelled" if stopped else "completed")
    yield InferenceFinished(
        inference_id=origin.inference_id,
        status=status,
        model="",
        stop_reason=_STOP_REASONS[status],
        duration_ms=0,
    )


_STOP_REASONS: dict[Outcome, StopReason] = {
    "completed": "stop",
    "cancelled": "cancelled",
    "failed": "error",
    "max_iterations": "tool_calls",
    "lost": "error",
}
