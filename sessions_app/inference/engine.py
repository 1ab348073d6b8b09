"""Engine: one provider call. EngineBuilder: from a session's runtime to its runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, runtime_checkable

from .turns import Turn

Infer: TypeAlias = Callable[[Turn], Awaitable[Turn]]
"""One step from turn to turn: an engine's `infer`, or a middleware around it."""

Middleware: TypeAlias = Callable[[Infer], Infer]
"""Wraps a step. In a list of middlewares the first is the outermost."""


class Engine(Protocol):
    """One call to a model.

    `infer(turn)` publishes what arrives as it arrives (`events.publish`), ends with
    `ModelCallFinished`, and returns the turn with the answer's blocks appended. It raises
    InferenceFailed with one sentence for people, lets CancelledError through at once, and never
    publishes the inference's end: the runner does.
    """

    @property
    def model(self) -> str: ...

    async def infer(self, turn: Turn) -> Turn: ...


@runtime_checkable
class Closing(Protocol):
    """An engine, or a builder of engines, that holds something open."""

    async def aclose(self) -> None:
        """Lets go of it. Called when no inference runs."""


def chain(engine: Infer, middlewares: tuple[Middleware, ...]) -> Infer:
    """`engine` inside all middlewares; the first listed is the outermost."""
    for middleware in reversed(middlewares):
        engine = middleware(engine)
    return engine
