"""Doubles for tests: an engine that plays a script, a sink that remembers.

For our tests and an app author's. They need neither Django nor a network:

    middle = Gate("middle")
    engine = ScriptedEngine(TextDelta("Hel"), middle, TextDelta("lo"), ModelCallFinished())
    sink = RecordingSink()
    runner = InferenceRunner(engine)
    … start it; await middle.reached(); look, or cancel; middle.open()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from .inference.events import EngineEvent, Event, Origin, TextDelta, ThinkingDelta, publish
from .inference.turns import LlmText, Reasoning, Turn


class Gate:
    """A named place where a double stops until the test opens it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._arrived = asyncio.Event()
        self._opened = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Gate {self.name}>"

    def open(self) -> None:
        """Lets through whoever stands here, and all who come later."""
        self._opened.set()

    async def reached(self) -> None:
        """Returns once somebody has come to the gate."""
        await self._arrived.wait()

    async def passed(self) -> None:
        """Comes to the gate, and returns when it is open."""
        self._arrived.set()
        await self._opened.wait()


@dataclass(frozen=True, slots=True)
class Sleep:
    """A step that takes `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class IgnoreCancel:
    """A step that waits at the gate and swallows every cancellation until it opens."""

    gate: Gate


@dataclass(frozen=True, slots=True)
class AbsorbCancel:
    """A step that waits at the gate; a cancellation ends the script as if it had been played."""

    gate: Gate


Step: TypeAlias = (
    EngineEvent | Gate | Sleep | IgnoreCancel | AbsorbCancel | BaseException | Callable[[], object]
)


class ScriptedEngine:
    """An Engine that plays `steps` in each call, and nothing else.

    An event is published, an exception raised, a callable called. The answer is the text it
    published, with its reasoning before it; without text it appends no answer. `turns` are the
    turns it was given.
    """

    def __init__(self, *steps: Step, model: str = "scripted") -> None:
        self.model = model
        self.steps = steps
        self.turns: list[Turn] = []

    async def infer(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        text: list[str] = []
        thinking: list[str] = []
        for step in self.steps:
            match step:
                case Gate():
                    await step.passed()
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case IgnoreCancel(gate):
                    await _ignoring_cancel(gate)
                case AbsorbCancel(gate):
                    try:
                        await gate.passed()
                    except asyncio.CancelledError:
                        break
                case BaseException():
                    raise step
                case _ if callable(step):
                    step()
                case _:
                    publish(step)
                    if isinstance(step, TextDelta):
                        text.append(step.text)
                    elif isinstance(step, ThinkingDelta):
                        thinking.append(step.text)
        if thinking:
            turn = turn.with_blocks(Reasoning(text="".join(thinking)))
        return turn.with_blocks(LlmText(text="".join(text))) if text else turn


async def _ignoring_cancel(gate: Gate) -> None:
    while True:
        try:
            return await gate.passed()
        except asyncio.CancelledError:
            continue


class Flushed:
    """What a RecordingSink notes for a flush that has come through."""

    def __repr__(self) -> str:
        return "FLUSHED"


FLUSHED: Final = Flushed()


class RecordingSink:
    """An EventSink that keeps each event with its origin, and each flush, in order.

    With a `flush_gate` a flush takes until that opens.
    """

    def __init__(self, *, flush_gate: Gate | None = None) -> None:
        self.record: list[tuple[Event, Origin | None] | Flushed] = []
        self._flush_gate = flush_gate

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        self.record.append((event, origin))

    async def flush(self) -> None:
        if self._flush_gate is not None:
            await self._flush_gate.passed()
        self.record.append(FLUSHED)

    @property
    def events(self) -> list[Event]:
        return [entry[0] for entry in self.record if not isinstance(entry, Flushed)]

    @property
    def text(self) -> str:
        """All text of the answers."""
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))
