"""Talk to the configured agent in a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from argparse import ArgumentParser
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError

from sessions_app.conf import session_builder, session_settings
from sessions_app.inference.errors import BadEdits, ProfileNotFound
from sessions_app.inference.events import (
    AgentModeSwitched,
    Event,
    InferenceFinished,
    Log,
    Origin,
    PauseClosed,
    PauseOpened,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolCallRequested,
    ToolProgress,
)
from sessions_app.inference.steps import PersonDecision
from sessions_app.profiles import Profiles
from sessions_app.queue import Prompt
from sessions_app.session import Session

DIM, BOLD, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
DECISIONS: dict[str, PersonDecision] = {
    "": "continue",
    "c": "continue",
    "e": "edit",
    "s": "skip",
    "a": "abort",
}


class Command(BaseCommand):
    """One conversation, in this process. Ctrl-C stops an answer, and at the prompt it leaves."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prompt", nargs="?", help="ask this, answer and leave")
        parser.add_argument("--profile", help="the profile to talk to")
        parser.add_argument("--step-mode", action="store_true", help="stop at each step")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            ended_well = asyncio.run(_converse(options, sys.stdin, sys.stdout))
        except ProfileNotFound as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            ended_well = True
        if not ended_well:
            raise SystemExit(1)


async def _converse(options: dict[str, Any], source: TextIO, target: TextIO) -> bool:
    settings = session_settings()
    builder = session_builder(settings)
    screen = Screen(target)
    session = Session(
        "terminal",
        owner="visitor:terminal",
        profile=Profiles(settings.resolved_profiles()).get(options["profile"]),
        builder=builder,
        sink=screen,
        now_ms=lambda: 0,
    )
    if options["step_mode"]:
        session.set_step_mode(True, by="visitor")
    lines = Lines(source)
    ended_well = True
    try:
        if options["prompt"]:
            return await _answer(session, options["prompt"], screen, lines)
        screen.write(f"{BOLD}{session.profile.title or session.profile.slug}{PLAIN}, ")
        screen.write("Ctrl-C stops an answer, Ctrl-D leaves.\n")
        while True:
            screen.write(f"\n{BOLD}> {PLAIN}")
            line = await lines.next()
            if line is None:
                return ended_well
            if line.strip():
                ended_well = await _answer(session, line, screen, lines)
    finally:
        await builder.aclose()


async def _answer(session: Session, prompt: str, screen: Screen, lines: Lines) -> bool:
    """One inference with its pauses; True when it was completed."""
    handle = session.start(Prompt(text=prompt, key="terminal"))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, handle.cancel)
    deciding = asyncio.create_task(_decide_pauses(session, screen, lines), name="decide-pauses")
    try:
        await handle.wait()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        deciding.cancel()
        await asyncio.wait({deciding})
    return handle.outcome == "completed"


async def _decide_pauses(session: Session, screen: Screen, lines: Lines) -> None:
    while True:
        pause = await screen.pauses.get()
        screen.write("[Enter] continue, [e]dit, [s]kip, [a]bort? ")
        answer = await lines.next()
        decision = DECISIONS.get("a" if answer is None else answer.strip().lower())
        if decision is None:
            screen.pauses.put_nowait(pause)
            continue
        edits = None
        if decision == "edit":
            screen.write('{"<call id>": {…}} ')
            try:
                edits = json.loads(await lines.next() or "")
            except ValueError as error:
                screen.write(f"That is not JSON: {error}\n")
                screen.pauses.put_nowait(pause)
                continue
        try:
            session.steps.decide(pause.pause_id, decision, by="visitor", edits=edits)
        except BadEdits as error:
            screen.write(f"{error}\n")
            screen.pauses.put_nowait(pause)


class Screen:
    """An EventSink that shows an inference as it runs."""

    def __init__(self, target: TextIO) -> None:
        self.pauses: asyncio.Queue[PauseOpened] = asyncio.Queue()
        self._target = target
        self._thinking = False

    def write(self, text: str) -> None:
        self._target.write(text)
        self._target.flush()

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        match event:
            case TextDelta(text):
                if self._thinking:
                    self.write("\n\n")
                self._thinking = False
                self.write(text)
            case ThinkingDelta(text):
                self._thinking = True
                self.write(f"{DIM}{text}{PLAIN}")
            case ToolCallRequested():
                shown = json.dumps(event.input, ensure_ascii=False, default=str)
                self.write(f"\n{BOLD}{event.name}{PLAIN} {shown} {DIM}{event.call_id}{PLAIN}\n")
            case ToolProgress():
                self.write(f"{DIM}… {event.note}{PLAIN}\n")
            case ToolCallFinished():
                self.write(f"{DIM}{event.status}: {event.result}{PLAIN}\n")
            case PauseOpened():
                self.write(f"\n{event.summary}. ")
                self.pauses.put_nowait(event)
            case PauseClosed():
                self.write(f"{DIM}{event.decision} by {event.by}{PLAIN}\n")
            case AgentModeSwitched():
                self.write(f"\n{event.title}: {event.previous} → {event.current}\n")
            case Log():
                self.write(f"\n{DIM}{event.message}{PLAIN}\n")
            case InferenceFinished() if event.status != "completed":
                self.write(f"\n{DIM}[{event.error or event.status}]{PLAIN}\n")
            case InferenceFinished():
                self.write("\n")
            case _:
                pass  # the rest is for pages

    async def flush(self) -> None:
        """What is written is shown."""


class Lines:
    """The lines of a terminal or a pipe, one at a time, without a thread that cannot be ended."""

    def __init__(self, source: TextIO) -> None:
        self._fd = source.fileno()
        self._read = b""
        self._ended = False

    async def next(self) -> str | None:
        """The next line without its end; None at the end of input."""
        while b"\n" not in self._read and not self._ended:
            await self._readable()
            block = os.read(self._fd, 65536)
            self._read += block
            self._ended = not block
        if not self._read:
            return None
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace")

    async def _readable(self) -> None:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._fd, ready.set)
        except OSError:  # a plain file is always ready
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
