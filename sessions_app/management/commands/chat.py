"""Talk to the configured agent in a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sessions_app.conf import session_builder, session_settings
from sessions_app.inference.errors import ConfigurationError, ProfileNotFound
from sessions_app.profiles import Profiles
from sessions_app.terminal import Lines, Screen, Talk


class Command(BaseCommand):
    """One conversation, in this process, which keeps nothing of it.

    Ctrl-C stops an answer, and at the prompt it leaves. Lines may be piped in: each is a prompt, or
    the answer to a pause. Ends with 1 when the last answer of a pipe, or the one asked for, failed.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prompt", nargs="?", help="ask this, answer and leave")
        parser.add_argument("--profile", help="the profile to talk to; the first one otherwise")
        parser.add_argument("--step-mode", action="store_true", help="stop at each step")

    def handle(self, *args: Any, **options: Any) -> None:
        settings = session_settings()
        try:
            profile = Profiles(settings.resolved_profiles()).get(options["profile"])
            builder = session_builder(settings)
        except ProfileNotFound as error:
            raise CommandError(str(error)) from None
        except ConfigurationError as error:
            raise CommandError(f"{error} {error.hint}") from None
        # Python has no stdin where it was started without one.
        lines = Lines(sys.stdin.fileno() if sys.stdin else os.open(os.devnull, os.O_RDONLY))
        self.stdout.ending = ""
        styled = options["force_color"] or (self.stdout.isatty() and not options["no_color"])
        screen = Screen(self.stdout, styled=styled)

        async def converse() -> bool:
            talk = Talk(profile, builder, screen=screen, lines=lines)
            if options["step_mode"]:
                talk.step()
            try:
                return await (talk.answer(options["prompt"]) if options["prompt"] else talk.run())
            finally:
                await builder.aclose()

        try:
            ended_well = asyncio.run(converse())
        except KeyboardInterrupt:
            screen.write("\n")
            return
        if screen.gone:
            # Or Python would complain of it at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not ended_well and (options["prompt"] or not lines.is_terminal):
            raise SystemExit(1)
