"""The system prompt of a profile."""

from __future__ import annotations

from ..engine import Infer, Middleware
from ..turns import Turn


def system_prompt(text: str) -> Middleware:
    """Makes `text` the one system block of the turn; an empty text leaves none. Idempotent.

    Whatever an earlier profile or middleware told the model there is gone.
    """

    def middleware(infer: Infer) -> Infer:
        async def with_system_prompt(turn: Turn) -> Turn:
            return await infer(turn.with_system(text))

        return with_system_prompt

    return middleware
