"""What a client keeps of a socket: its place in the stream, checked frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

Frame: TypeAlias = dict[str, Any]
"""The `event` of a message, as docs/protocol.md describes it."""


class FrameReader:
    """Reads messages, and asserts of each the law of the stream: `seq` rises by exactly 1."""

    def __init__(self) -> None:
        self.seq: int | None = None
        self.epoch = 0
        self.cursor = ""
        """What a client that comes back says it has seen; empty before the first frame."""

    def read(self, text: str) -> Frame:
        message = json.loads(text)
        assert message["sem"] is True, message
        frame: Frame = message["event"]
        if frame["type"] == "ws.hello":
            self.epoch = frame["data"]["epoch"]
        if frame["type"] == "timeline.snapshot":
            self.seq, self.epoch = frame["data"]["version"], frame["data"]["epoch"]
            self.cursor = frame["data"]["cursor"]
        if "seq" in frame:
            assert self.seq is None or frame["seq"] == self.seq + 1, (self.seq, frame)
            self.seq = frame["seq"]
            named = f".{frame['stream_id']}" if "stream_id" in frame else ""
            self.cursor = f"{self.epoch}.{self.seq}{named}"
        return frame


def text_of(frames: Iterable[Frame], kind: str = "llm.delta") -> str:
    """The concatenated deltas."""
    return "".join(frame["data"]["delta"] for frame in frames if frame["type"] == kind)
