"""manage.py chat in a terminal of its own, and what it says of a wrong profile."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from django.core.management import CommandError, call_command

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0


IN_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


class Spawned:
    """`manage.py chat` with a pseudo-terminal as its own."""

    def __init__(self, *arguments: str, state: Path) -> None:
        command = [sys.executable, "manage.py", "chat", *arguments]
        self._process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, *command],
            cwd=ROOT,
            env={**os.environ, "WEBCHAT_STATE_DIR": str(state), "WEBCHAT_MODEL": "demo"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.text = ""

    def shows(self, text: str) -> None:
        """Reads up to and with `text`."""
        assert self._process.stdout is not None
        end = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < end, f"no {text!r} in {self.text!r}"
            if select.select([self._process.stdout], [], [], 1)[0]:
                read = os.read(self._process.stdout.fileno(), 65536)
                assert read, f"it ended; no {text!r} in {self.text!r}"
                self.text += read.decode(errors="replace")
        self.text = self.text.partition(text)[2]

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), text.encode())

    def ended(self) -> int:
        """The exit code."""
        return self._process.wait(timeout=PATIENCE)

    def __enter__(self) -> Spawned:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends what a failed test left behind: the wrapper, and `manage.py chat` in it."""
        if self._process.poll() is None:
            for program in psutil.Process(self._process.pid).children(recursive=True):
                program.kill()
            self._process.kill()
        self._process.communicate(timeout=PATIENCE)


def test_a_talk_in_a_real_terminal_from_its_greeting_to_ctrl_c(tmp_path: Path):
    with Spawned("--profile", "agent", state=tmp_path) as spawned:
        spawned.shows("Agent\x1b[0m. Ctrl-C stops an answer, Ctrl-D leaves.")
        spawned.shows("> ")
        spawned.type("approve\n")
        spawned.shows("[c]ontinue, [e]dit, [s]kip, [a]bort; denied in 300 s: ")
        spawned.type("c\n")
        spawned.shows("success: The note was left.")
        spawned.shows("> ")
        spawned.type("slow 60\n")
        spawned.shows("Counting: 1")
        spawned.type("\x03")
        spawned.shows("[stopped]")
        spawned.shows("> ")
        spawned.type("\x03")
        assert spawned.ended() == 0


def test_an_unknown_profile_is_told_those_there_are():
    with pytest.raises(CommandError, match="unknown profile 'nope'; expected one of: agent, def"):
        call_command("chat", profile="nope")
