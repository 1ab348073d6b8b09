"""The faults. Each breaks one thing, waits, and mends it again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from redis.exceptions import RedisError

from cluster.store import Keys
from tests.redis_server import ClusteredRedis

from .people import Tab
from .service import Server, Service
from .stores import ClusteredStore, Store


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
        await self._store.kill()
        await asyncio.sleep(self._random.uniform(0, 1.5))
        await self._store.start()

    async def lose(self) -> None:
        """Redis is killed and comes back with nothing."""
        store = self._store
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
        store = self._store
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
        await self._store.freeze(self._random.uniform(0.5, self._lease * 2))

    async def reset(self) -> None:
        """Redis hangs up on everybody, again and again, in the middle of what it does for them.

        What is asked while it is busy is done in one go with the hanging up, and the answers of
        what came first are lost.
        """
        client = self._store.client
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            busy = asyncio.create_task(_quietly(client.eval(BUSY, 0)))
            await asyncio.sleep(0.005)
            for kind in ("normal", "pubsub"):
                kill = ("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                await _quietly(client.execute_command(*kill))  # type: ignore[no-untyped-call]
            await busy
            await asyncio.sleep(self._random.uniform(0.05, 0.3))

    async def halt(self) -> None:
        """A node of the cluster says nothing for a while, not long enough to be replaced."""
        nodes = self._cluster
        number = self._random.choice(await asyncio.to_thread(nodes.primaries))
        nodes.pause(number)
        try:
            await asyncio.sleep(self._random.uniform(0.5, self._lease * 2))
        finally:
            nodes.resume(number)

    async def promote(self) -> None:
        """A replica of the cluster takes the place of its primary."""
        nodes = self._cluster
        primaries = await asyncio.to_thread(nodes.primaries)
        replicas = [number for number in range(len(nodes.ports)) if number not in primaries]
        await asyncio.to_thread(nodes.promote, self._random.choice(replicas))

    async def move(self) -> None:
        """A conversation goes to another node of the cluster, with its slot."""
        nodes = self._cluster
        number = self._random.choice(await asyncio.to_thread(nodes.primaries))
        conv_id = self._random.choice(list(self._tabs)).history.conv_id
        await asyncio.to_thread(nodes.move, Keys(conv_id).meta, number)

    @property
    def _store(self) -> Store:
        store = self._service.store
        assert isinstance(store, Store)
        return store

    @property
    def _cluster(self) -> ClusteredRedis:
        store = self._service.store
        assert isinstance(store, ClusteredStore)
        return store.nodes

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

Fault: TypeAlias = Callable[[Nemesis], Awaitable[None]]
OF_SERVERS: Mapping[str, Fault] = {
    "kill": Nemesis.kill,
    "drain": Nemesis.drain,
    "stop": Nemesis.stop,
}
OF_REDIS: Mapping[str, Fault] = {
    "restart": Nemesis.restart,
    "lose": Nemesis.lose,
    "rollback": Nemesis.rollback,
    "pause": Nemesis.pause,
    "reset": Nemesis.reset,
}
OF_CLUSTER: Mapping[str, Fault] = {
    "halt": Nemesis.halt,
    "promote": Nemesis.promote,
    "move": Nemesis.move,
}
FAULTS: Mapping[str, Fault] = {**OF_SERVERS, **OF_REDIS, **OF_CLUSTER}


def faults(*, cluster: bool) -> Sequence[str]:
    """What can befall a service."""
    return [*OF_SERVERS, *(OF_CLUSTER if cluster else OF_REDIS)]
