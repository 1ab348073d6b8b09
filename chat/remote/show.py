"""What a terminal shows of sessions and frames. Nothing of it reaches the terminal as a command."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sessions_app.inference.events import TextDelta, ThinkingDelta, ThinkingSummary
from sessions_app.terminal.screen import BOLD, DIM, Screen, as_json, printable
from sessions_app.values import LiveSession

from ..desk.words import clock, duration, owner_words, seconds, state_words
from ..streams import StreamInfo

_LONGEST = 1000
_COLUMNS = ("CONVERSATION", "OWNER", "PROFILE", "STATE", "QUEUED", "SOCKETS", "SEQ", "ACTIVE")


def table(rows: Iterable[tuple[LiveSession, StreamInfo]]) -> str:
    """Live sessions as lines with a head."""
    now_ms = time.time_ns() // 1_000_000
    cells: list[Sequence[str]] = [_COLUMNS]
    cells += [_cells(session, stream, now_ms) for session, stream in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in cells
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(session: LiveSession, stream: StreamInfo, now_ms: int) -> Sequence[str]:
    state = state_words(session.state, now_ms)
    return [
        printable(text)
        for text in (
            session.conv_id,
            owner_words(session.owner, {}),
            session.profile,
            f"{state.label} {state.detail}",
            str(session.queue_depth),
            str(stream.sockets),
            str(stream.head_seq),
            f"{seconds(now_ms - session.last_activity_ms)} ago",
        )
    ]


class FrameScreen:
    """Shows frames as a conversation reads."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def frame(self, frame: Mapping[str, Any]) -> None:
        screen, data, name = self._screen, frame["data"], f"[{frame['id']}]"
        match frame["type"]:
            case "chat.message":
                screen.line(f"> {printable(data['content'])}", BOLD)
            case "inference.started":
                screen.line(printable(f"{data['profile']}, {data['model']}"), DIM)
            case "llm.delta":
                screen.show(TextDelta(data["delta"]))
            case "llm.thinking.delta":
                screen.show(ThinkingDelta(data["delta"]))
            case "llm.thinking.summary":
                screen.show(ThinkingSummary(data["text"]))
            case "llm.final" if data["status"] != "completed":
                screen.line(f"(this answer was {data['status']})", DIM)
            case "tool.start":
                screen.line(f"{printable(name)} {printable(data['name'])} {as_json(data['input'])}")
            case "tool.delta" if "progress" in data["patch"] or "note" in data["patch"]:
                screen.line(f"{printable(name)} {_progress(data['patch'])}", DIM)
            case "tool.result":
                told = f"{name} {data['status']} in {duration(data['durationMs'])}: "
                screen.line(printable(told + _shortened(data["result"])), DIM)
            case "debugger.pause":
                until = clock(data["deadlineMs"])
                screen.line(printable(f"Paused until {until}: {data['summary']}"), BOLD)
            case "debugger.resumed":
                screen.line(printable(f"{data['decision']} by {data['by']}"), DIM)
            case "queue.updated":
                screen.line(f"{data['depth']} waiting in the queue", DIM)
            case "session.updated":
                step = "on" if data["stepMode"] else "off"
                screen.line(printable(f"profile {data['profile']}, step mode {step}"), DIM)
            case "log":
                screen.line(printable(f"{data['level']}: {data['message']}"), DIM)
            case "inference.finished":
                screen.line(printable(f"[{_end(data)}]"), DIM)
            case "llm.start" | "llm.final" | "llm.thinking.start" | "llm.thinking.final":
                pass  # the text itself was shown
            case "tool.delta" | "tool.done":
                pass  # the call and its result are
            case other:
                screen.line(printable(_shortened(f"{other} {_json(data)}")), DIM)

    def snapshot(self, data: Mapping[str, Any], *, after: int) -> None:
        """What changed beyond `after`, of a state that stands for frames that are gone."""
        for entity in data["entities"]:
            if entity["updatedSeq"] <= after:
                continue
            props = entity["props"]
            if entity["kind"] == "message":
                self._screen.line(printable(f"{props['role']}: {props['content']}"))
            else:
                self._screen.line(printable(_shortened(f"{entity['kind']} {_json(props)}")), DIM)


def _progress(patch: Mapping[str, Any]) -> str:
    done = f"{patch['progress']:.0%} " if patch.get("progress") is not None else ""
    return printable(f"… {done}{patch.get('note') or ''}".rstrip())


def _end(data: Mapping[str, Any]) -> str:
    told = f"{data['status']} after {duration(data['durationMs'])}"
    if "usage" in data:
        told += f", {data['usage']['inputTokens']} + {data['usage']['outputTokens']} tokens"
    if "error" in data:
        told += f": {data['error']}"
    return told


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
