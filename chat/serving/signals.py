"""What the signals of a server process mean."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from ..hub import Hub
from .drain import drain

logger = logging.getLogger(__name__)


class Shutdown:
    """The one way a served process ends. Made inside its running loop.

    SIGTERM drains: what runs may end within `timeout` seconds. SIGINT, or any signal while it
    drains, ends what runs at once. One more has the system's own meaning again. `stop` ends the
    server, and is called once.
    """

    def __init__(self, hub: Hub, *, timeout: float, stop: Callable[[], None]) -> None:
        self._hub = hub
        self._timeout = timeout
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._leaving: asyncio.Task[None] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._asked, number)

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

    def _drained(self, leaving: asyncio.Task[None]) -> None:
        if not leaving.cancelled() and (error := leaving.exception()) is not None:
            logger.error("the process could not drain in good order", exc_info=error)
        # The server's own end closes the hub, if that is still to be done.
        self._stop()
