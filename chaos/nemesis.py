"""The faults. Each breaks one thing, waits, and mends it again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from .people import Tab
from .service import Server, Service


class Nemesis:
    """Breaks one thing after the other. `counts` are the faults so far."""

    def __init__(
        self,
        service: Service,
        tabs: Sequence[Tab],
        *,
        kinds: Sequence[str],
        lease: float,
        every: float,
        seed: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.stuck: list[str] = []
        """Servers that were asked to go and did not."""
        self._service = service
        self._tabs = tabs
        self._kinds = kinds
        self._lease = lease
        self._every = every
        self._random = random.Random(seed)  # noqa: S311 - guards nothing
        self._starting: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float, *, enough: Callable[[], bool]) -> None:
        """One fault after the other; the last one ends after so long, or when it is enough."""
        ends = time.monotonic() + seconds
        kinds = list(self._kinds)  # in turn first, so that a short run has each
        while time.monotonic() < ends and not enough():
            await asyncio.sleep(self._random.uniform(0.4, 1.6) * self._every)
            if self._kinds:
                await self.strike(kinds.pop(0) if kinds else None)

    async def strike(self, kind: str | None = None) -> None:
        """One fault, of any kind where none is named."""
        kind = kind or self._random.choice(self._kinds)
        self.counts[kind] += 1
        await FAULTS[kind](self)

    async def mend(self) -> None:
        """Returns when all that was broken works."""
        if self._starting:
            await asyncio.wait(self._starting)
        for tab in self._tabs:
            tab.here.set()

    def _server(self) -> Server:
        return self._service.any(self._random)

    async def _leaving(self) -> Server | None:
        """A server that may go, or none: one stays, as long as there is another.

        The last one to go is missed by nobody but its own sessions.
        """
        servers = self._service.servers
        while len(servers) > 1 and sum(server.up for server in servers) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        server = self._server()
        return server if server.up else None

    def _meanwhile(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def kill(self) -> None:
        """kill -9 of a server, and a new one in its place."""
        if (server := await self._leaving()) is not None:
            await server.kill()
            self._meanwhile(server.start())

    async def drain(self) -> None:
        """SIGTERM to a server, and a new one in its place once it has gone."""
        if (server := await self._leaving()) is not None:
            server.terminate()
            # Whoever asks does not know it at once.
            await asyncio.sleep(self._random.uniform(0, 1))
            server.up = False
            self._meanwhile(self._replaced(server))

    async def _replaced(self, server: Server) -> None:
        if not await server.gone(DRAIN_SECONDS):
            self.stuck.append(server.name)
            await server.kill()
        await server.start()

    async def stop(self) -> None:
        """SIGSTOP beyond the lease: it wakes as a zombie."""
        server = self._server()
        if server.up:
            await server.freeze(self._lease * self._random.uniform(1.2, 2.5))

    async def restart(self) -> None:
        """Redis is killed and comes back with its data."""
        await self._service.store.kill()
        await asyncio.sleep(self._random.uniform(0, 1.5))
        await self._service.store.start()

    async def lose(self) -> None:
        """Redis is killed and comes back with nothing."""
        store = self._service.store
        self._losing(since=0)
        await store.kill()
        store.replace(None)
        await asyncio.sleep(self._random.uniform(0, 1))
        await store.start()
        self._lost()

    async def rollback(self) -> None:
        """Redis comes back with an older state, while half of the tabs are away.

        They stay away until others have written beyond where they were: else they would be told by
        the log's length alone.
        """
        store = self._service.store
        since = time.monotonic()
        copied = store.copy()
        await asyncio.sleep(self._random.uniform(0.5, 2))
        away = self._random.sample(list(self._tabs), len(self._tabs) // 2)
        for tab in away:
            tab.go_away()
        self._losing(since=since)
        await store.kill()
        store.replace(copied)
        await store.start()
        self._lost()
        await asyncio.sleep(self._random.uniform(2, 5))
        for tab in away:
            tab.here.set()

    async def pause(self) -> None:
        """Redis says nothing for a while."""
        await self._service.store.freeze(self._random.uniform(0.5, self._lease * 2))

    async def reset(self) -> None:
        """Redis hangs up on everybody, again and again, in the middle of what it does for them.

        What is asked while it is busy is done in one go with the hanging up, and the answers of
        what came first are lost.
        """
        client = self._service.store.client
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            busy = asyncio.create_task(_quietly(client.eval(BUSY, 0)))
            await asyncio.sleep(0.005)
            for kind in ("normal", "pubsub"):
                kill = ("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                await _quietly(client.execute_command(*kill))  # type: ignore[no-untyped-call]
            await busy
            await asyncio.sleep(self._random.uniform(0.05, 0.3))

    def _losing(self, *, since: float) -> None:
        for history in {tab.history for tab in self._tabs}:
            history.losing(since)

    def _lost(self) -> None:
        for history in {tab.history for tab in self._tabs}:
            history.lost()


async def _quietly(asked: Any) -> None:
    """It may be hung up on as all others."""
    with suppress(RedisError, OSError):
        await asked


DRAIN_SECONDS = 60.0
"""A server that goes has DRAIN_TIMEOUT for its answers, and the rest on a machine that is busy."""
BUSY = "for i = 1, 3000000 do end"
"""Some 20 ms."""

FAULTS: dict[str, Callable[[Nemesis], Awaitable[None]]] = {
    "kill": Nemesis.kill,
    "drain": Nemesis.drain,
    "stop": Nemesis.stop,
    "restart": Nemesis.restart,
    "lose": Nemesis.lose,
    "rollback": Nemesis.rollback,
    "pause": Nemesis.pause,
    "reset": Nemesis.reset,
}
