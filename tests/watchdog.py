"""Ends a test process that is stuck, and says in what: a run of the tests always ends.

pytest-timeout raises once, in the main thread. What is raised inside a task is the task's alone,
Hypothesis runs the example once more, and when a test has failed nothing bounds its teardown any
longer. So each phase of a test has `GRACE` more than the test itself may take; then the process
tells where all its tasks and threads are, and ends with the programs that it started.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from time import monotonic, sleep  # the real ones, whatever a test makes of the module's
from typing import Any

import psutil
import pytest

GRACE = 30.0
"""Seconds that pytest-timeout has to be first: it lets the other tests of the process go on."""
COLLECTING = 300.0
ENDING = 900.0
"""A worker that has done its tests waits here for the others."""
TELLING = 10.0
"""Seconds in which the stacks must be written; a process that holds its GIL writes none."""


class Watchdog(threading.Thread):
    """Watches one thing at a time; `rest` ends that."""

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        # A copy from before any output is captured, never closed: it serves until the very end.
        assert sys.__stderr__ is not None
        self._output = os.dup(sys.__stderr__.fileno())
        self._watched: tuple[str, float, float] | None = None

    def watch(self, what: str, seconds: float) -> None:
        self._watched = (what, seconds, monotonic() + seconds)
        faulthandler.dump_traceback_later(seconds + TELLING, exit=True, file=self._output)

    def rest(self) -> None:
        self._watched = None
        faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        while True:
            sleep(1)
            match self._watched:
                case what, seconds, due if monotonic() >= due:
                    self._end(f"{what} has not ended in {seconds:.0f} s")

    def _end(self, words: str) -> None:
        try:
            self._say(f"\n\n{words}: this process ends. What it was waiting in:\n")
            for task in _unfinished_tasks():
                self._say(f"\n{task!r}\n")
                for frame in task.get_stack():
                    self._say(f"  {frame.f_code.co_filename}:{frame.f_lineno}\n")
            self._say("\n")
            faulthandler.dump_traceback(self._output)
            for program in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    self._say(f"killing {program.pid}: {' '.join(program.cmdline())[:200]}\n")
                    program.kill()
        finally:
            os._exit(1)

    def _say(self, words: str) -> None:
        os.write(self._output, words.encode(errors="replace"))


def _unfinished_tasks() -> list[asyncio.Task[Any]]:
    # Of every loop: asyncio lists only those of a loop that one has.
    return [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]


_KEY = pytest.StashKey[Watchdog]()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("usepdb"):
        return
    config.stash[_KEY] = dog = Watchdog()
    dog.start()


def pytest_enter_pdb(config: pytest.Config) -> None:
    if dog := config.stash.get(_KEY, None):
        dog.rest()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    return (yield from _watched(session.config, "the collection of the tests", COLLECTING))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _watched(item.config, f"the setup of {item.nodeid}", _limit(item)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _watched(item.config, item.nodeid, _limit(item)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _watched(item.config, f"the teardown of {item.nodeid}", _limit(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """From here on to the last breath of the process."""
    if dog := session.config.stash.get(_KEY, None):
        dog.watch("the end of the test process", ENDING)


def _watched(config: pytest.Config, what: str, seconds: float) -> Generator[None, object, object]:
    dog = config.stash.get(_KEY, None)
    if dog is None or not seconds:
        return (yield)
    dog.watch(what, seconds)
    try:
        return (yield)
    finally:
        dog.rest()


def _limit(item: pytest.Item) -> float:
    """Seconds for each phase of the test; 0 for one that may take as long as it wants."""
    marker = item.get_closest_marker("timeout")
    of_all = item.config.getoption("timeout") or item.config.getini("timeout")
    own = float(marker.args[0] if marker else of_all or 0)
    return own + GRACE if own else 0
