"""An engine that plays a script, and the places where a test may stop it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import uuid4

import msgspec

from ..inference.errors import InferenceFailed
from ..inference.events import EngineEvent, TextDelta, ThinkingDelta, publish
from ..inference.tools import Offer, offered
from ..inference.turns import Block, LlmText, Reasoning, ToolCall, Turn


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
    str
    | EngineEvent
    | ToolCall
    | Gate
    | Sleep
    | IgnoreCancel
    | AbsorbCancel
    | BaseException
    | Callable[[], object]
)
Script: TypeAlias = Sequence[Step]
"""What an engine does in one model call."""


class ScriptedEngine:
    """An Engine that plays a script, and nothing else.

    Of steps alone it makes one script, and plays it in each model call. Of lists of steps each is
    the script of one call; a call more fails the inference and says so.

    Text is published and is the answer, an event is published, a ToolCall is asked for, an
    exception raised, a callable called. Reasoning comes before the text in the answer, calls after
    it. `turns` are the turns it was given, `offers` the tools it was offered with each.
    """

    def __init__(self, *script: Step | Script, model: str = "scripted") -> None:
        self.model = model
        self.turns: list[Turn] = []
        self.offers: list[Offer] = []
        self.play(*script)

    def play(self, *script: Step | Script) -> None:
        """Goes on with another script, from the next model call."""
        steps: list[Step] = []
        scripts: list[Script] = []
        for each in script:
            if isinstance(each, Sequence) and not isinstance(each, str):
                scripts.append(each)
            else:
                steps.append(each)
        if steps and scripts:
            raise TypeError("got steps and lists of steps; expected one or the other")
        self._every_call: Script = steps
        self._per_call = deque(scripts)
        self._scripts = len(scripts)

    async def infer(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        self.offers.append(offered())
        return turn.with_blocks(*await _played(self._next_script()))

    def _next_script(self) -> Script:
        if not self._scripts:
            return self._every_call
        if not self._per_call:
            raise InferenceFailed(
                f"The test's script has {self._scripts} model calls, and was asked for another."
            )
        return self._per_call.popleft()


async def _played(script: Script) -> Sequence[Block]:
    """The blocks of the answer."""
    text: list[str] = []
    thinking: list[str] = []
    calls: list[ToolCall] = []
    for step in script:
        match step:
            case str():
                publish(TextDelta(step))
                text.append(step)
            case ToolCall():
                # Played twice it is two calls, and two blocks.
                calls.append(msgspec.structs.replace(step, id=str(uuid4())))
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
    return [
        *([Reasoning(text="".join(thinking))] if thinking else []),
        *([LlmText(text="".join(text))] if text else []),
        *calls,
    ]


async def _ignoring_cancel(gate: Gate) -> None:
    while True:
        try:
            return await gate.passed()
        except asyncio.CancelledError:
            continue
