"""A stand-in for the runner: it asks an engine, and hears what the engine publishes."""

from __future__ import annotations

import asyncio

from sessions_app.inference.engine import Engine
from sessions_app.inference.events import EngineEvent, TextDelta, ThinkingDelta, publishing_to
from sessions_app.inference.turns import Turn, User


class Recorder:
    """A RunSink that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self.spoken = asyncio.Event()

    def publish(self, event: EngineEvent) -> None:
        self.events.append(event)
        self.spoken.set()

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def thinking(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ThinkingDelta))


async def ask(engine: Engine, prompt: str, recorder: Recorder) -> Turn:
    """The turn after `prompt`, asked as the first prompt of a conversation."""
    return await infer(engine, Turn(blocks=(User(text=prompt),)), recorder)


async def infer(engine: Engine, turn: Turn, recorder: Recorder) -> Turn:
    with publishing_to(recorder):
        return await engine.infer(turn)
