"""Limits that hold over all processes of a service.

Prompts are counted in Redis. Sockets are counted by each process, which tells the others every two
seconds: for as long somebody may open more than they should, and a process that died counts no more
a few seconds later.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from math import ceil

import msgspec
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from cluster.presence import Presence

from .limits import Bounds, LimitName, Limits
from .redis_log import reached

logger = logging.getLogger(__name__)

TOPIC = "limits"
KEYS = "webchat:limits"


class SharedLimits(Limits):
    """As Limits, over all processes. What is awaited raises Unavailable."""

    def __init__(self, bounds: Bounds, *, client: Redis, presence: Presence) -> None:
        super().__init__(bounds)
        self._shared = MovingWindowRateLimiter(_Storage(client))
        self._elsewhere: Counter[tuple[str, str]] = Counter()
        presence.tell(TOPIC, self._tell)
        presence.hear(TOPIC, self._hear)

    async def take_prompt(self, owner: str, address: str) -> None:
        by_limit = self._prompt_limits(owner, address)
        # Looked at first, so that what is refused is not counted; counting decides, for others
        # count at the same time.
        for take in (self._shared.test, self._shared.hit):
            for name, bound, who in by_limit:
                item = RateLimitItemPerMinute(bound)
                if not await reached(take(item, name, who)):
                    stats = await reached(self._shared.get_window_stats(item, name, who))
                    raise self._limited(name, bound, max(1, ceil(stats.reset_time - time.time())))

    def _open(self, name: LimitName, who: str) -> int:
        return super()._open(name, who) + self._elsewhere[name, who]

    async def _tell(self) -> bytes:
        told = [
            (name, who, count)
            for (name, who), count in self._sockets.items()
            if name != "sockets_process"
        ]
        return msgspec.json.encode(told)

    def _hear(self, said: Sequence[bytes]) -> None:
        elsewhere: Counter[tuple[str, str]] = Counter()
        for each in said:
            try:
                for name, who, count in msgspec.json.decode(each, type=list[tuple[str, str, int]]):
                    elsewhere[name, who] += count
            except msgspec.MsgspecError as error:
                logger.debug("another process cannot be understood: %s", error)
        self._elsewhere = elsewhere


class _Storage(RedisStorage):
    """As it comes, with our client: which knows the nodes of a cluster, as this one does not."""

    def __init__(self, client: Redis) -> None:
        super().__init__(
            "redis://",
            implementation="redispy",
            key_prefix=KEYS,
            connection_pool=client.connection_pool,  # type: ignore[arg-type]  # as its doc says
        )
        self.bridge.storage = client  # type: ignore[attr-defined]  # it has it from its start
        self.bridge.register_scripts()
