"""A stand-in for the runner: it asks an engine, and hears what the engine publishes."""

from __future__ import annotations

import asyncio

from sessions_app.inference.engine import Engine
from sessions_app.inference.events import Event, Origin, publishing_to
from sessions_app.inference.turns import Turn, User
from sessions_app.testing import RecordingSink


class Recorder(RecordingSink):
    """`spoken` is set by each event it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken = asyncio.Event()

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        super().publish(event, origin)
        self.spoken.set()


async def ask(engine: Engine, prompt: str, recorder: Recorder) -> Turn:
    """The turn after `prompt`, asked as the first prompt of a conversation."""
    return await infer(engine, Turn(blocks=(User(text=prompt),)), recorder)


async def infer(engine: Engine, turn: Turn, recorder: Recorder) -> Turn:
    with publishing_to(recorder):
        return await engine.infer(turn)
