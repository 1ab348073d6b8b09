"""What a server under test is asked to send, and when. All of them are asked alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import repeat

import msgspec

from . import markdown

PIECE = " token"


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: its pieces, from a moment of the machine's monotonic clock on.

    As fast as the loop turns, or `per_second`. A stamped piece says when it was made; those of
    Markdown are longer, and together look like an answer.
    """

    frames: int
    per_second: float = 0
    at: float = 0
    stamped: bool = False
    markdown: bool = False

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> Orders:
        return msgspec.json.decode(text, type=cls)

    async def pieces(self) -> AsyncIterator[str]:
        """Each when it is due. Others have their turn between two, so none waits for the next."""
        await asyncio.sleep(max(0.0, self.at - time.monotonic()))
        began = time.monotonic()
        words = markdown.pieces() if self.markdown else repeat(PIECE)
        for number, piece in zip(range(self.frames), words, strict=False):
            if self.per_second:
                due = began + number / self.per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            else:
                await asyncio.sleep(0)
            yield f"@{time.monotonic_ns()} " if self.stamped else piece
