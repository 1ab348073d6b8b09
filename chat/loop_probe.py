"""How late the event loop is, which everybody who waits for this process waits longer, and why."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

EVERY_SECONDS = 0.25
LOOK_SECONDS = 0.05
"""The watchdog looks at least that long after it looked: twice in a warning's time, else."""
FRAMES = 8


class LoopProbe:
    """Owns a task that sleeps, and a thread that looks whether it still wakes.

    The task tells `observe` by how many seconds it woke too late. The thread tells the log, once
    for each time that the loop is blocked and while it is, in which task and by which lines.
    """

    def __init__(self, observe: Callable[[float], object], *, warn_above: float) -> None:
        self._observe = observe
        self._warn_above = warn_above
        self._task: asyncio.Task[None] | None = None
        self._woke = time.monotonic()
        self._ended = threading.Event()

    def start(self) -> None:
        """Begins to measure the running loop; another call changes nothing."""
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(self._run(loop.time()), name="loop-probe")
            self._woke = time.monotonic()
            self._ended = threading.Event()
            threading.Thread(
                target=self._watch,
                args=(loop, threading.get_ident(), self._ended),
                name="loop-watchdog",
                daemon=True,
            ).start()

    async def aclose(self) -> None:
        self._ended.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, woke: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            # In this order the thread never sees more of a delay than is measured in the end.
            now = loop.time()
            self._woke = time.monotonic()
            lag, woke = max(0.0, now - woke - EVERY_SECONDS), now
            self._observe(lag)
            if lag > self._warn_above:
                logger.warning(
                    "the event loop was %.2f s late: something blocked it, "
                    "or the machine has too little CPU",
                    lag,
                )

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, ended: threading.Event) -> None:
        told = None
        while not ended.wait(max(LOOK_SECONDS, self._warn_above / 2)):
            woke = self._woke
            late = time.monotonic() - woke - EVERY_SECONDS
            if late <= self._warn_above or woke == told:
                continue
            by = lines(thread)
            if by is None:
                continue  # it waits for nothing but its turn on the CPU
            told = woke
            task = asyncio.current_task(loop)
            logger.error(
                "the event loop is blocked since %.2f s in %s, by %s",
                late,
                "a callback" if task is None else f"task {task.get_name()}",
                by,
            )


def lines(thread: int) -> str | None:
    """What the thread does now, innermost first; None where it waits in its selector."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return None
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    if Path(stack[0].filename).name == "selectors.py":
        return None
    return ", called by ".join(
        f"{line.filename}:{line.lineno} in {line.name}" for line in stack[:FRAMES]
    )
