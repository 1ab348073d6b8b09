"""Virtual time beside a real Redis: it stands still while an answer of Redis is on its way."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

from channels.layers import InMemoryChannelLayer
from redis.asyncio import BlockingConnectionPool, Redis

from chat.log import Window
from chat.redis_logs import RedisLogs
from cluster.connect import OPTIONS
from cluster.leases import Leases
from cluster.store import NOTHING, Bounds, RedisStore

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BOUNDS = Bounds(frames=100_000, bytes=64 * 1024 * 1024, age_ms=10**14, ttl_seconds=3600)
"""Of any age: the clock of the moments is not that of Redis."""
LEASE = 60.0
LOOK_SECONDS = 1.0


class _Selector(selectors.DefaultSelector):
    """`now` is the loop's time. While `busy()`, only what comes over the network wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.busy: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if found or timeout == 0:
            return found
        if self.busy():
            return super().select(LOOK_SECONDS)
        assert timeout is not None, "everybody waits for ever"
        self.now += max(timeout, 0)
        return []


class BesideRedis(asyncio.SelectorEventLoop):
    """Time passes only while everybody waits, and nobody for Redis. Threads take none of it."""

    def __init__(self) -> None:
        self.watch = _Selector()
        super().__init__(self.watch)

    def time(self) -> float:
        return self.watch.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the future's to tell
            future.set_exception(error)
        return future


@asynccontextmanager
async def redis_logs(url: str, *conv_ids: str) -> AsyncIterator[RedisLogs]:
    """The logs of a process that owns these conversations."""
    pool = BlockingConnectionPool.from_url(url, **OPTIONS)
    loop = asyncio.get_running_loop()
    if isinstance(loop, BesideRedis):
        loop.watch.busy = lambda: bool(pool._in_use_connections)
    store = RedisStore(Redis(connection_pool=pool), bounds=BOUNDS)
    leases = Leases(
        store, "alone", on_lost=lambda lease: None, on_mail=lambda conv_id: None, seconds=LEASE
    )
    for conv_id in conv_ids:
        await leases.claim(conv_id)
    try:
        yield RedisLogs(
            store,
            leases,
            window=Window(seconds=math.inf),
            extra=lambda conv_id: NOTHING,
            layer=InMemoryChannelLayer(),
            wake=lambda conv_id: None,
        )
        assert leases.held == conv_ids, leases.losses
    finally:
        await leases.aclose()
        await pool.disconnect()
