"""How late the event loop is: what everybody who waits for this process waits longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

EVERY_SECONDS = 0.25


class LoopProbe:
    """Owns one task that sleeps, and tells `observe` by how many seconds it woke too late."""

    def __init__(self, observe: Callable[[float], object], *, warn_above: float) -> None:
        self._observe = observe
        self._warn_above = warn_above
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to measure the running loop; another call changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="loop-probe")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_SECONDS
            await asyncio.sleep(EVERY_SECONDS)
            lag = max(0.0, loop.time() - due)
            self._observe(lag)
            if lag > self._warn_above:
                logger.warning(
                    "the event loop was %.2f s late: something blocked it, "
                    "or the machine has too little CPU",
                    lag,
                )
