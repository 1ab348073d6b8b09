"""Processes of one service without a server: each has a loop of its own, and may be killed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from channels.layers import InMemoryChannelLayer
from redis import Redis as SyncRedis
from redis.asyncio import BlockingConnectionPool, Redis

from chat.log import Window, wall_ms
from chat.redis_logs import RedisLogs
from chat.streams import Streams
from cluster.connect import CONNECTIONS, OPTIONS, WAIT_SECONDS
from cluster.presence import Presence
from cluster.store import LEASES, Bounds, Keys, RedisStore
from sessions_app.builder import ProfileEngineBuilder
from sessions_app.cluster import ClusterSessions
from sessions_app.inference.engine import Engine
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.middleware import MiddlewareRegistry
from sessions_app.inference.tools import Tool, ToolRegistry
from sessions_app.manager import ManagerLimits, SessionManager
from sessions_app.profiles import Profile, Profiles

T = TypeVar("T")
PATIENCE = 30.0
LEASE = 60.0
"""Seconds: no test waits for it, and a slow machine loses none."""
BOUNDS = Bounds(frames=10_000, bytes=4 * 1024 * 1024, age_ms=3_600_000, ttl_seconds=3600)


class _Pool(BlockingConnectionPool):
    """Its process is `dead`: nothing goes out of it any more."""

    dead = False

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        if self.dead:
            raise ConnectionError("this process is dead")
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]


class Process:
    """One process of the service, on a thread of its own."""

    def __init__(
        self,
        url: str,
        name: str,
        engine: Engine,
        *,
        tools: Sequence[Tool] = (),
        queue: int = 16,
        lease_seconds: float = LEASE,
    ) -> None:
        self.name = name
        self.engine = engine
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self.run(self._begin(tools, queue, lease_seconds))

    async def _begin(self, tools: Sequence[Tool], queue: int, lease_seconds: float) -> None:
        self._pool = _Pool.from_url(
            self._url, max_connections=CONNECTIONS, timeout=WAIT_SECONDS, **OPTIONS
        )
        self.store = RedisStore(Redis(connection_pool=self._pool), bounds=BOUNDS)
        self.sessions = ClusterSessions(
            self.store,
            process=self.name,
            presence=Presence(self.store.client, self.name),
            lease_seconds=lease_seconds,
            now_ms=wall_ms,
        )
        self._logs = RedisLogs(
            self.store,
            self.sessions.owned.leases,
            window=Window(seconds=math.inf),
            extra=self.sessions.owned.extra,
            layer=InMemoryChannelLayer(),
            wake=lambda conv_id: None,
        )
        self.streams = Streams(logs=self._logs)
        known = ToolRegistry(tools)
        builder = ProfileEngineBuilder(
            lambda name: self.engine,
            middlewares=MiddlewareRegistry(),
            inference_timeout=3600,
            cancel_grace=5,
            tools=known,
            executor=DefaultToolExecutor(),
        )
        self.manager = SessionManager(
            profiles=Profiles([Profile(slug="chat", tools=tuple(each.name for each in tools))]),
            builder=builder,
            streams=self.streams,
            tools=known,
            limits=ManagerLimits(queue=queue),
            on_idle=self.sessions.owned.look,
        )
        self.sessions.bind(self.manager, self.streams, watched=_nobody)
        self.sessions.start()
        self._logs.start()

    def start(self, verb: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Begins it there; any thread may wait for its `result()`."""
        return asyncio.run_coroutine_threadsafe(verb, self._loop)  # type: ignore[return-value]

    def run(self, verb: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(verb, self._loop).result(PATIENCE)

    def owns(self, conv_id: str) -> bool:
        return conv_id in self.sessions.owned.leases.held

    def stop(self, seconds: float, *, and_then: Callable[[], None] = lambda: None) -> None:
        """As SIGSTOP and SIGCONT: nothing happens there meanwhile. Then without Redis, for good.

        `and_then` is told two steps after it woke; none of them waits for anything.
        """
        woken = threading.Event()

        def stopped() -> None:
            time.sleep(seconds)
            self._pool.dead = True
            # What is due by time comes in the next step.
            self._loop.call_soon(lambda: self._loop.call_soon(told))

        def told() -> None:
            and_then()
            woken.set()

        self._loop.call_soon_threadsafe(stopped)
        assert woken.wait(seconds + PATIENCE), "the process does not wake"

    def cut_off(self) -> None:
        """Nobody hears it any more, and it hears nobody."""
        self._pool.dead = True

    def silence(self) -> None:
        """From here on it is cut off from Redis, for good."""
        self._pool.dead = True

    def kill(self) -> None:
        """Says no more word to anybody; its leases run out at once."""
        self.silence()
        held = self.sessions.owned.leases.held
        self.run(self._die())
        self._stop()
        with SyncRedis.from_url(self._url) as redis:
            for conv_id in held:
                if redis.hget(Keys(conv_id).meta, "owner") == self.name.encode():
                    redis.hset(Keys(conv_id).meta, "until", 0)
                redis.zadd(LEASES, {conv_id: 0})

    async def _die(self) -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)
        await self._pool.disconnect()

    def leave(self) -> None:
        """Ends as a server does that is asked to."""
        self.run(self._leave())
        self._stop()

    async def _leave(self) -> None:
        await self.sessions.aclose()
        await self.streams.aclose()
        await self._logs.aclose()
        await self._pool.disconnect()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


async def _nobody() -> Sequence[str]:
    return ()
