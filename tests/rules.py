"""What must be true whatever happened: of a log's frames, and of what a provider is sent.

Both are read from the contract alone (docs/protocol.md, Anthropic's rules for messages) and share
no code with what they judge. An empty list means that nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec

from sessions_app.inference.turns import (
    Block,
    LlmText,
    Other,
    Reasoning,
    System,
    ToolCall,
    ToolUse,
    Turn,
    User,
)

Frame = dict[str, Any]


# Frames


def broken_rules(frames: Sequence[Frame]) -> list[str]:
    """What is wrong with a conversation's frames, from the first one to where nothing runs."""
    story = _Story()
    for seq, frame in enumerate(frames, 1):
        if frame["seq"] != seq:
            story.found.append(f"seq {frame['seq']} where {seq} is due")
        story.take(frame)
    if story.inference is not None:
        story.found.append(f"inference {story.inference} has no end")
    return story.found


class _Story:
    """The frames so far, and what they left open."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.inference: str | None = None
        self._ended: set[str] = set()
        self._prompted: str | None = None
        self._segment: tuple[str, str] | None = None
        self._text = ""
        self._tools: dict[str, str] = {}
        self._result: Frame | None = None
        self._pauses: set[str] = set()
        self._ids: set[tuple[str, str]] = set()

    def take(self, frame: Frame) -> None:
        kind, id, data = frame["type"], frame["id"], frame["data"]
        if self._result is not None and (kind, id) != ("tool.done", self._result["id"]):
            self._wrong(frame, f"{self._result['id']} has its result, and is not done")
            self._result = None
        if not kind.startswith(("queue.", "session.")):
            self._check_inference(frame)
        match kind.split("."):
            case ["chat", "message"]:
                self._once(frame)
                self._prompted = frame["inference_id"]
            case ["inference", "started"]:
                if self._prompted != id or frame["inference_id"] != id:
                    self._wrong(frame, "it starts without its prompt")
                self._once(frame)
                self.inference = id
            case ["inference", "finished"]:
                self._finish(frame)
            case ["llm", *_, "start"]:
                if self._segment is not None:
                    self._wrong(frame, f"{self._segment[1]} is open")
                self._once(frame)
                self._segment, self._text = (data["role"], id), ""
            case ["llm", *_, "delta"]:
                if self._segment is None or self._segment[1] != id:
                    self._wrong(frame, "its message is not open")
                if data["offset"] != len(self._text):
                    self._wrong(frame, f"offset {data['offset']} at {len(self._text)}")
                self._text += data["delta"]
            case ["llm", *_, "final"]:
                if self._segment is None or self._segment[1] != id:
                    self._wrong(frame, "its message is not open")
                if data["text"] != self._text:
                    self._wrong(frame, "its text is not that of its deltas")
                self._segment = None
            case ["tool", *_]:
                self._take_tool(frame)
            case ["debugger", "pause"]:
                self._once(frame)
                self._pauses.add(id)
            case ["debugger", "resumed"]:
                if id not in self._pauses:
                    self._wrong(frame, "its pause is not open")
                self._pauses.discard(id)
            case ["queue", "updated"]:
                places = [item["position"] for item in data["items"]]
                if places != [*range(1, data["depth"] + 1)]:
                    self._wrong(frame, "depth and positions do not agree")

    def _take_tool(self, frame: Frame) -> None:
        kind, id, data = frame["type"], frame["id"], frame["data"]
        match kind:
            case "tool.start":
                if self._segment is not None:
                    self._wrong(frame, f"{self._segment[1]} is open")
                self._once(frame)
                self._tools[id] = "asked"
            case "tool.delta":
                if id not in self._tools:
                    self._wrong(frame, "its call is not open")
            case "tool.result":
                if id not in self._tools:
                    self._wrong(frame, "its call is not open")
                self._result = frame
            case "tool.done":
                if self._result is None or self._result["data"]["status"] != data["status"]:
                    self._wrong(frame, "its result is not right before it, with its status")
                self._result = None
                self._tools.pop(id, None)

    def _check_inference(self, frame: Frame) -> None:
        of = frame.get("inference_id")
        if of is None and frame["type"] == "log":
            return
        if of in self._ended:
            self._wrong(frame, "its inference has ended")
        elif self.inference is None:
            if frame["type"] not in ("chat.message", "inference.started"):
                self._wrong(frame, "no inference runs")
        elif of != self.inference:
            self._wrong(frame, f"{self.inference} runs")

    def _finish(self, frame: Frame) -> None:
        if self.inference != frame["id"]:
            self._wrong(frame, "it does not run")
        if self._segment is not None:
            self._wrong(frame, f"message {self._segment[1]} is open")
        for id in (*self._tools, *self._pauses):
            self._wrong(frame, f"{id} is open")
        self._ended.add(frame["id"])
        self.inference = self._segment = self._prompted = None
        self._tools.clear()
        self._pauses.clear()

    def _once(self, frame: Frame) -> None:
        key = (frame["type"], frame["id"])
        if key in self._ids:
            self._wrong(frame, "it came before")
        self._ids.add(key)

    def _wrong(self, frame: Frame, why: str) -> None:
        self.found.append(f"{frame['seq']} {frame['type']} {frame['id']}: {why}")


# What a provider is sent


def complaints(turn: Turn) -> list[str]:
    """What Anthropic's rules for calls and their results have against the turn."""
    found = []
    kinds = [isinstance(block, System) for block in turn.blocks]
    if kinds != sorted(kinds, reverse=True):
        found.append("a system block is not at the beginning")
    call_ids = [block.call_id for block in turn.blocks if isinstance(block, ToolCall)]
    if any(not call_id for call_id in call_ids) or len(set(call_ids)) < len(call_ids):
        found.append("tool_use ids must be there and unique")
    sent = [block for block in turn.blocks if not isinstance(block, System | Other)]
    messages = [list(blocks) for _, blocks in groupby(sent, key=_role)]
    for at, message in enumerate(messages):
        asked = [block.call_id for block in message if isinstance(block, ToolCall)]
        if asked and not all(isinstance(block, ToolCall) for block in message[-len(asked) :]):
            found.append("a tool_use is not at the end of its message")
        if _role(message[0]) == "user":
            continue
        following = messages[at + 1] if at + 1 < len(messages) else []
        answers = following[: len(asked)]
        if [getattr(block, "call_id", None) for block in answers] != asked:
            found.append("a tool_use is not answered at the beginning of the next message")
        if any(isinstance(block, ToolUse) for block in following[len(asked) :]):
            found.append("a tool_result has no tool_use right before it")
    if messages and any(isinstance(block, ToolUse) for block in messages[0]):
        found.append("a tool_result has no tool_use right before it")
    return found


def refusals(turn: Turn) -> list[str]:
    """Why the strictest provider would refuse the turn as a request.

    Beside `complaints`: it begins and ends with the user's side, prompts are never next to each
    other and never merged with results, and no text is empty.
    """
    found = complaints(turn)
    sent = [block for block in turn.blocks if not isinstance(block, System | Other | Reasoning)]
    for before, block in zip([None, *sent], sent, strict=False):
        if isinstance(block, User) and isinstance(before, User | ToolUse):
            found.append("a prompt is not after an answer")
        if isinstance(block, User | LlmText) and not block.text.strip():
            found.append("a text is empty")
        if not _encodable(block):
            found.append("a text cannot be sent")
    if not sent or not isinstance(sent[0], User):
        found.append("it does not begin with the user")
    if not sent or _role(sent[-1]) != "user":
        found.append("it does not end with the user's side")
    return found


def _encodable(block: Block) -> bool:
    try:
        msgspec.json.encode(block)
    except UnicodeEncodeError:
        return False
    return True


def _role(block: Block) -> str:
    return "user" if isinstance(block, User | ToolUse) else "assistant"
