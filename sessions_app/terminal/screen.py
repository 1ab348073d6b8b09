"""What a person at a terminal is shown of an inference."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Protocol

from ..inference.events import (
    AgentModeSwitched,
    AppEvent,
    Event,
    InferenceFinished,
    Log,
    PauseClosed,
    PauseOpened,
    TextDelta,
    ThinkingDelta,
    ThinkingSummary,
    ToolCallFinished,
    ToolCallRequested,
    ToolProgress,
)

DIM, BOLD, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
LONGEST_RESULT = 1000
"""Characters of a result that are shown; the model reads all of it."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Target(Protocol):
    """Where text goes: a stream, or Django's wrapper of one."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> None: ...


class Screen:
    """Writes events as they come. Nothing that a model wrote reaches the terminal as a command.

    When nobody reads any more, as behind `| head`, `gone` is true and the rest is dropped.
    """

    def __init__(self, target: Target, *, styled: bool) -> None:
        self.gone = False
        self._target = target
        self._styled = styled
        self._at_start = True
        self._section = ""
        self._numbers: dict[str, int] = {}

    def write(self, text: str, style: str = "") -> None:
        """Our own words, as they are."""
        if not text or self.gone:
            return
        self._at_start = text.endswith("\n")
        try:
            self._target.write(f"{style}{text}{PLAIN}" if style and self._styled else text)
            self._target.flush()
        except BrokenPipeError:
            self.gone = True

    def line(self, text: str, style: str = "") -> None:
        """A line of its own."""
        self._begin("line")
        self.write(text, style)
        self.write("\n")

    def entered(self) -> None:
        """The person pressed Enter: the terminal is at the start of a line."""
        self._at_start = True

    def number(self, call_id: str) -> int:
        """How the call is called here: 1 for the first of the conversation."""
        return self._numbers.setdefault(call_id, len(self._numbers) + 1)

    def show(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._begin("text")
                self.write(printable(text))
            case ThinkingDelta(text) | ThinkingSummary(text):
                self._begin("thinking")
                self.write(printable(text), DIM)
            case ToolCallRequested():
                self._begin("line")
                self.write(f"[{self.number(event.call_id)}] ", DIM)
                self.write(printable(event.name), BOLD)
                self.write(f" {as_json(event.input)}\n")
            case ToolProgress():
                done = "" if event.progress is None else f"{event.progress:.0%} "
                told = f"{done}{printable(event.note)}".rstrip()
                self.line(f"[{self.number(event.call_id)}] … {told}", DIM)
            case ToolCallFinished():
                result = printable(_shortened(event.result))
                self.line(f"[{self.number(event.call_id)}] {event.status}: {result}", DIM)
            case PauseOpened():
                self.line(f"{printable(event.summary)}.")
            case PauseClosed():
                self.line(f"{event.decision} by {printable(event.by)}", DIM)
            case AgentModeSwitched():
                self.line(printable(f"{event.title}: {event.previous} → {event.current}"))
            case Log():
                fields = f" {as_json(event.fields)}" if event.fields else ""
                self.line(f"{event.level}: {printable(event.message)}{fields}", DIM)
            case AppEvent():
                self.line(f"{printable(event.kind)} {as_json(event.props)}", DIM)
            case InferenceFinished():
                self._end(event)
            case _:
                pass  # the rest is for pages

    def _begin(self, section: str) -> None:
        """What follows stands apart from what was written before."""
        if section != self._section or section == "line":
            if not self._at_start:
                self.write("\n")
            if section == "text" and self._section == "thinking":
                self.write("\n")
        self._section = section

    def _end(self, event: InferenceFinished) -> None:
        if event.status == "completed":
            self._begin("line")
        else:
            self.line(f"[{printable(event.error or _ENDS[event.status])}]", DIM)
        self._section = ""


_ENDS = {
    "cancelled": "stopped",
    "failed": "failed",
    "max_iterations": "stopped at the limit of model calls for one prompt",
    "lost": "lost",
}


def printable(text: str) -> str:
    """`text` without what a terminal takes for a command: a colour, a moved cursor, a direction."""
    return _CONTROL.sub("�", text.replace("\r\n", "\n"))


def as_json(value: Mapping[str, object] | str) -> str:
    """Arguments as a person can read them and type them again."""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(shown)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_RESULT:
        return text
    return f"{text[:LONGEST_RESULT]}… ({len(text)} characters)"
