"""What the signals of a server process mean."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from ..hub import Hub
from ..loop_probe import lines
from .drain import drain

logger = logging.getLogger(__name__)

LONGEST_END = 9.5
"""Seconds after the time for what runs in which the process ends by itself, or is ended."""
TASKS = 8
"""How many of the tasks that are left the log is told then."""


class Shutdown:
    """The one way a served process ends. Made inside its running loop.

    SIGTERM drains: what runs may end within `timeout` seconds. SIGINT, or any signal while it
    drains, ends what runs at once. One more has the system's own meaning again. `stop` ends the
    server, and is called once.

    Whatever holds the process up then, a blocked loop too, it ends `LONGEST_END` seconds after
    `timeout`: with 0 if everybody was told, else with 1.
    """

    def __init__(self, hub: Hub, *, timeout: float, stop: Callable[[], None]) -> None:
        self._hub = hub
        self._timeout = timeout
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._leaving: asyncio.Task[None] | None = None
        self._last: threading.Timer | None = None
        self._thread = threading.get_ident()
        self._is_drained = False
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._asked, number)
            # Python calls this between two steps of whatever blocks the loop, which then hears of
            # the signal too.
            signal.signal(number, self._count_down)

    def _count_down(self, number: int, frame: FrameType | None) -> None:
        if self._last is None:
            timeout = self._timeout if number == signal.SIGTERM else 0.0
            self._last = threading.Timer(timeout + LONGEST_END, self._end)
            self._last.daemon = True
            self._last.start()

    def _end(self) -> None:
        tasks = sorted({task.get_name() for task in asyncio.all_tasks(self._loop)})
        held = lines(self._thread) or f"nothing but a wait for {', '.join(tasks[:TASKS])}"
        logger.error("the process does not end by itself and is ended; it was in %s", held)
        os._exit(0 if self._is_drained else 1)

    def _asked(self, number: signal.Signals) -> None:
        if self._leaving is None:
            logger.info("%s: this process takes no more work and goes", number.name)
            timeout = self._timeout if number == signal.SIGTERM else 0.0
            self._leaving = asyncio.create_task(self._leave(timeout), name="drain")
            self._leaving.add_done_callback(self._drained)
        else:
            logger.info("%s once more: what runs is ended now", number.name)
            for each in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(each)
            self._leaving.cancel()

    async def _leave(self, timeout: float) -> None:
        try:
            await drain(self._hub, timeout)
        except asyncio.CancelledError:
            # Ours, by a second signal. Before the server stops: it would cut its sockets off.
            await self._hub.aclose()
        self._is_drained = True

    def _drained(self, leaving: asyncio.Task[None]) -> None:
        if not leaving.cancelled() and (error := leaving.exception()) is not None:
            logger.error("the process could not drain in good order", exc_info=error)
        # The server's own end closes the hub, if that is still to be done.
        self._stop()
