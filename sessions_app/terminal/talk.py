"""Talk: prompts, answers and decisions of one person at a terminal."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

from ..inference.errors import AlreadyDecided, BadEdits, UnknownPause
from ..inference.events import Event, Origin, PauseClosed, PauseOpened
from ..inference.steps import Edits, PersonDecision
from ..profiles import Profile
from ..queue import Prompt
from ..session import EngineBuilder, Session
from .lines import Lines
from .screen import BOLD, Screen, as_json


class Talk:
    """One session, whose events it shows and whose pauses it asks about. Keeps nothing.

    Runs in the main thread: while an answer is written, SIGINT stops it.
    """

    def __init__(
        self, profile: Profile, builder: EngineBuilder, *, screen: Screen, lines: Lines
    ) -> None:
        self._screen = screen
        self._lines = lines
        self._asking: asyncio.Task[None] | None = None
        self._session = Session(
            "terminal",
            owner="visitor:terminal",
            profile=profile,
            builder=builder,
            sink=self,
            now_ms=_now_ms,
        )

    def step(self) -> None:
        """Stops at each step from here on."""
        self._session.set_step_mode(True, by="visitor")

    async def run(self) -> bool:
        """Answers line after line until their end; True when the last answer was completed."""
        ended_well = True
        if self._lines.is_terminal:
            profile = self._session.profile
            self._screen.write(profile.title or profile.slug, BOLD)
            self._screen.write(". Ctrl-C stops an answer, Ctrl-D leaves.\n")
        while not self._screen.gone:
            if self._lines.is_terminal:
                self._screen.write("\n")
                self._screen.write("> ", BOLD)
            line = await self._typed()
            if line is None:
                break
            if line.strip():
                ended_well = await self.answer(line)
        return ended_well

    async def answer(self, prompt: str) -> bool:
        """One inference with its pauses; True when it was completed."""
        handle = self._session.start(Prompt(text=prompt, key="terminal"))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, handle.cancel)
        try:
            await handle.wait()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            if self._asking is not None:
                await asyncio.wait({self._asking})
        return handle.outcome == "completed"

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        if isinstance(event, PauseClosed) and self._asking is not None:
            self._asking.cancel()
        self._screen.show(event)
        if self._screen.gone and self._session.active is not None:
            self._session.active.cancel()
        if isinstance(event, PauseOpened):
            self._asking = asyncio.create_task(self._ask(event), name=f"ask:{event.pause_id}")

    async def flush(self) -> None:
        """What is written is shown."""

    async def _ask(self, pause: PauseOpened) -> None:
        """Asks until the pause has ended. A line that is no answer is asked about again."""
        # What was typed before the question is no answer to it.
        self._lines.forget()
        while True:
            self._screen.write(_question(pause))
            line = await self._typed()
            decision = "abort" if line is None else _decision(line, pause)
            if decision is None:
                continue
            try:
                edits = await self._edits(pause) if decision == "edit" else None
                message = await self._message() if decision == "skip" else ""
                self._session.steps.decide(
                    pause.pause_id, decision, by="visitor", edits=edits, message=message
                )
            except BadEdits as error:
                self._screen.line(f"{error}.")
            except (AlreadyDecided, UnknownPause):
                return  # it ended while the person wrote
            else:
                return

    async def _edits(self, pause: PauseOpened) -> Edits:
        """New arguments for the calls that wait. Raises BadEdits."""
        edits = {}
        calls: Any = pause.extra["toolCalls"]
        for call in calls:
            number = self._screen.number(call["id"])
            self._screen.line(f"[{number}] {call['name']} {as_json(call['input'])}")
            self._screen.write("New arguments as JSON, or Enter to keep these: ")
            line = await self._typed() or ""
            if line.strip():
                edits[call["id"]] = _arguments(line)
        if not edits:
            raise BadEdits("nothing was changed")
        return edits

    async def _message(self) -> str:
        self._screen.write("What the model is told instead of a result, or Enter: ")
        return await self._typed() or ""

    async def _typed(self) -> str | None:
        line = await self._lines.next()
        if self._lines.is_terminal and line is not None:
            self._screen.entered()
        return line


def _question(pause: PauseOpened) -> str:
    approval = pause.on_timeout == "deny"
    choices = "[c]ontinue" if approval else "[Enter] continue"
    if pause.phase == "after_inference":
        choices += ", [e]dit, [s]kip"
    seconds = max(0, round((pause.deadline_ms - _now_ms()) / 1000))
    return f"{choices}, [a]bort; {'denied' if approval else 'continues'} in {seconds} s: "


def _decision(line: str, pause: PauseOpened) -> PersonDecision | None:
    """What the line decides. To agree to a call takes a letter; to go on after a step, only Enter.

    Calls that have run can neither be edited nor skipped.
    """
    given = line.strip().lower()
    if not given:
        return "continue" if pause.on_timeout == "continue" else None
    decision = _DECISIONS.get(given)
    if pause.phase == "after_tools" and decision in ("edit", "skip"):
        return None
    return decision


_DECISIONS: dict[str, PersonDecision] = {
    "c": "continue",
    "e": "edit",
    "s": "skip",
    "a": "abort",
    "continue": "continue",
    "edit": "edit",
    "skip": "skip",
    "abort": "abort",
}


def _arguments(line: str) -> dict[str, Any]:
    try:
        arguments = json.loads(line)
    except ValueError as error:
        raise BadEdits(f"that is no JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise BadEdits(f"got {line!r}; expected a JSON object of arguments")
    return arguments


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
