"""An orderly end under every server: uvicorn says it by lifespan, Daphne by its reactor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

LEAVE_SECONDS = 1.0


class Lifecycle:
    """Wraps an ASGI application.

    Calls `start` before the first thing the server asks for, and `close` before it stops; each
    once, on the server's loop.
    """

    def __init__(
        self,
        application: Any,
        *,
        start: Callable[[], None] = lambda: None,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._application = application
        self._start = start
        self._started = False
        self._close = close
        self._watching_reactor = False
        self._running: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if not self._started:
            self._started = True
            self._start()
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self._watch_reactor()
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._application(scope, receive, send)
        finally:
            self._running.discard(task)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._end()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _end(self) -> None:
        """Closes, then ends the calls that are still under way.

        Daphne leaves the tasks of open websockets pending when it stops, and Python 3.11 may crash
        on such a task at its own end.
        """
        await self._close()
        left = tuple(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LEAVE_SECONDS)

    def _watch_reactor(self) -> None:
        """Daphne sends no lifespan; its reactor waits for what a shutdown trigger returns."""
        reactor = sys.modules.get("twisted.internet.reactor")
        if self._watching_reactor or reactor is None or not reactor.running:
            return
        self._watching_reactor = True
        from twisted.internet.defer import Deferred

        reactor.addSystemEventTrigger(
            "before",
            "shutdown",
            lambda: Deferred.fromFuture(asyncio.ensure_future(self._end())),
        )
