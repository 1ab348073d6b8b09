"""Turns as the desk lists them: each with what it added to the one before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sessions_app.values import Transcript

TITLES = {
    "system": "System prompt",
    "user": "User",
    "llm_text": "Assistant",
    "reasoning": "Thinking",
    "tool_call": "Tool call",
    "tool_use": "Tool result",
    "other": "Other",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBlock:
    """A block for people: what it is, in which state, and its text."""

    kind: str
    title: str
    note: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTurn:
    """A turn and the blocks that are new in it; `older` are shared with the turns before."""

    turn_id: str
    inference_id: str
    fingerprint: str
    outcome: str
    blocks: Sequence[OwnBlock]
    older: int


def own_turns(said: Transcript, count: int) -> Sequence[OwnTurn]:
    """The last `count` turns, newest first. One more than that should be in the transcript."""
    told = []
    known: set[str] = set()
    for turn in said.turns:
        new = [block for block in turn.blocks if block.id not in known]
        told.append(
            OwnTurn(
                turn_id=turn.id,
                inference_id=turn.metadata.inference_id or "",
                fingerprint=turn.metadata.fingerprint or "",
                outcome=turn.metadata.outcome or "",
                blocks=[_told(msgspec.to_builtins(block)) for block in new],
                older=len(turn.blocks) - len(new),
            )
        )
        known.update(block.id for block in new)
    return told[-count:][::-1]


def _told(block: Mapping[str, Any]) -> OwnBlock:
    kind = block["kind"]
    title = TITLES.get(kind, kind)
    match kind:
        case "tool_call":
            arguments = block["arguments"]
            text = arguments if isinstance(arguments, str) else pretty(arguments)
            return OwnBlock(kind=kind, title=title, note=block["name"], text=text)
        case "tool_use":
            note = block.get("status", "success")
            return OwnBlock(kind=kind, title=title, note=note, text=block["text"])
        case "other":
            return OwnBlock(kind=kind, title=title, note=block["name"], text="")
        case _:
            note = "stopped" if block.get("stopped") else ""
            return OwnBlock(kind=kind, title=title, note=note, text=block["text"])


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
