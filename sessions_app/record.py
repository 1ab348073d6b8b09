"""SessionRecord: a session as it is stored between processes. It can be made of it again anywhere.

Written in the same step as the frames that its changes made, so that record and log never disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

import msgspec

from .inference.events import OUTCOME_UNKNOWN
from .inference.runner import with_last_word
from .inference.steps import Resolution
from .inference.turns import Block, LlmText, ToolCall, ToolUse, Turn, TurnMetadata, User
from .profiles import Profile
from .values import InferenceStages, Queued, SessionInfo, Shown, Started

VERSION = 1


class StoredPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prompt that waits. `profile` is the slug it asked for; `runtime` where it has overrides."""

    text: str
    key: str
    profile: str | None = None
    runtime: Profile | None = None
    step_mode: bool | None = None
    queued_ms: int | None = None


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was answered to an owner's idempotency key."""

    key: str
    request: str
    at_ms: int
    started: Started | None = None
    queued: Queued | None = None


class StoredRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The active inference, and the prompt it answers.

    `stopping`: it was asked to end. `paused`: it waits for a person's decision.
    """

    inference_id: str
    turn_id: str
    prompt: User
    fingerprint: str
    started_ms: int
    stopping: bool = False
    paused: bool = False

    @property
    def outcome(self) -> Literal["cancelled", "lost"]:
        """How it ends where its process died: who was told that it is cancelled may rely on it."""
        return "cancelled" if self.stopping else "lost"


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session without its turns.

    Code and newer code may write it in turn: fields that only one of them knows are kept by the
    other, here at the top; `v` is the newest version that has written it.
    """

    v: int = VERSION
    conv_id: str
    owner: str
    profile: str
    title: str
    created_ms: int
    last_activity_ms: int
    step_mode: bool
    step_mode_after: bool | None = None
    queue: tuple[StoredPrompt, ...] = ()
    keys: tuple[StoredKey, ...] = ()
    decisions: tuple[Resolution, ...] = ()
    turns: int = 0
    errors: int = 0
    inferences: tuple[InferenceStages, ...] = ()
    run: StoredRun | None = None

    def info(self) -> SessionInfo:
        """The session as it was when this was written."""
        return SessionInfo(
            conv_id=self.conv_id,
            owner=self.owner,
            title=self.title,
            profile=self.profile,
            running=self.run is not None,
            paused=self.run is not None and self.run.paused,
            queue_depth=len(self.queue),
            step_mode=self.step_mode,
            created_ms=self.created_ms,
            last_activity_ms=self.last_activity_ms,
        )


class _StoredTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn; `shared` of its blocks are the last turn's first ones, `own` come after them."""

    id: str
    metadata: TurnMetadata
    shared: int = 0
    own: tuple[Block, ...] = ()


class _StoredTurns(msgspec.Struct, frozen=True, kw_only=True):
    blocks: tuple[Block, ...]
    turns: tuple[_StoredTurn, ...]


def pack_turns(turns: Sequence[Turn]) -> bytes:
    """The turns as JSON; what turns have in common is in it once."""
    blocks = turns[-1].blocks if turns else ()
    stored = []
    for turn in turns:
        shared = sum(1 for _ in takewhile(_same, zip(turn.blocks, blocks, strict=False)))
        stored.append(
            _StoredTurn(id=turn.id, metadata=turn.metadata, shared=shared, own=turn.blocks[shared:])
        )
    return msgspec.json.encode(_StoredTurns(blocks=blocks, turns=tuple(stored)))


def unpack_turns(raw: bytes) -> tuple[Turn, ...]:
    """The inverse of `pack_turns`."""
    stored = msgspec.json.decode(raw, type=_StoredTurns)
    return tuple(
        Turn(
            id=turn.id,
            blocks=stored.blocks[: turn.shared] + turn.own,
            metadata=turn.metadata,
        )
        for turn in stored.turns
    )


def _same(pair: tuple[Block, Block]) -> bool:
    return pair[0] is pair[1]


def lost_turn(history: Sequence[Turn], run: StoredRun, shown: Sequence[Shown]) -> Turn:
    """The turn of an inference whose process died, made of what people were shown of it.

    So model and page know the same. Thoughts are left out: no provider takes them unsigned. Each
    call has its result, in the order of the calls, and the assistant has the last word.
    """
    latest = history[-1] if history else Turn()
    blocks: list[Block] = [run.prompt]
    asked: list[str] = []
    results: dict[str, ToolUse] = {}

    def answer() -> None:
        for id in asked:
            unknown = ToolUse(call_id=id, text=OUTCOME_UNKNOWN, status="cancelled")
            blocks.append(results.get(id, unknown))
        asked.clear()

    for thing in shown:
        props = thing.props
        match thing.kind:
            case "message" if props.get("role") == "assistant" and props["content"].strip():
                answer()
                stopped = props.get("status") != "completed"
                blocks.append(LlmText(text=props["content"], stopped=stopped))
            case "tool_call":
                if results.keys() & asked:
                    answer()  # it is the next model call's
                asked.append(thing.id)
                blocks.append(
                    ToolCall(call_id=thing.id, name=props["name"], arguments=props["input"])
                )
            case "tool_result":
                results[props["toolCallId"]] = ToolUse(
                    call_id=props["toolCallId"], text=props["result"], status=props["status"]
                )
    answer()
    metadata = TurnMetadata(
        session_id=latest.metadata.session_id,
        inference_id=run.inference_id,
        fingerprint=run.fingerprint,
        outcome=run.outcome,
    )
    turn = Turn(id=run.turn_id, blocks=(*latest.blocks, *blocks), metadata=metadata)
    return with_last_word(turn, "lost", stopped=True)
