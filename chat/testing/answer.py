"""What the frames of an inference say, in the words of a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .reader import Frame, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolShown:
    """A tool call as people see it: `input` masked, `status` and `result` None until it ended."""

    id: str
    name: str
    input: dict[str, Any] | str
    status: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The frames of one inference, and what is in them."""

    frames: Sequence[Frame]

    @property
    def text(self) -> str:
        """What the agent said: its segments, with an empty line between two."""
        return "\n\n".join(frame["data"]["text"] for frame in self.of("llm.final"))

    @property
    def thinking(self) -> str:
        """What it thought, in one piece."""
        return text_of(self.frames, "llm.thinking.delta")

    @property
    def tools(self) -> Sequence[ToolShown]:
        """Its calls in the order they were asked for."""
        ended = {frame["id"]: frame["data"] for frame in self.of("tool.result")}
        return tuple(
            ToolShown(
                id=frame["id"],
                name=frame["data"]["name"],
                input=frame["data"]["input"],
                status=ended.get(frame["id"], {}).get("status"),
                result=ended.get(frame["id"], {}).get("result"),
            )
            for frame in self.of("tool.start")
        )

    @property
    def decisions(self) -> Sequence[str]:
        """How its pauses ended, in that order."""
        return tuple(frame["data"]["decision"] for frame in self.of("debugger.resumed"))

    @property
    def status(self) -> str:
        """How it ended: `completed`, `cancelled`, `failed` or `max_iterations`."""
        status: str = self._end["status"]
        return status

    @property
    def error(self) -> str | None:
        """The sentence that people are shown when it failed."""
        return self._end.get("error")

    def of(self, kind: str) -> Iterator[Frame]:
        """The frames of that type."""
        return (frame for frame in self.frames if frame["type"] == kind)

    @property
    def _end(self) -> dict[str, Any]:
        [finished] = self.of("inference.finished")
        data: dict[str, Any] = finished["data"]
        return data
