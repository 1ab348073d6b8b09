"""Middlewares: what stands between the session's turn and the engine."""

from __future__ import annotations

from .engine import Infer, Middleware
from .turns import Turn


def system_prompt(text: str) -> Middleware:
    """Makes `text` the one system block of the turn. An empty text takes it away. Idempotent."""

    def middleware(infer: Infer) -> Infer:
        async def with_system_prompt(turn: Turn) -> Turn:
            return await infer(turn.with_system(text))

        return with_system_prompt

    return middleware
