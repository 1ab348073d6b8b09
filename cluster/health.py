"""Health: whether the store answers, said in the log once when that changes and not each time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .sentinel import heed_sentinels
from .tasks import end

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Health:
    """Owns the task that asks each second. Belongs to one event loop.

    `on_reached` is given what the store says of itself whenever it is back.
    """

    def __init__(
        self, client: Redis, *, on_reached: Callable[[Mapping[str, Any]], None] = lambda info: None
    ) -> None:
        self._client = client
        self._on_reached = on_reached
        self._away_since: float | None = None
        self._reached = False
        self._task: asyncio.Task[None] | None = None

    @property
    def reached(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._reached

    def start(self) -> None:
        self._task = asyncio.create_task(self._look_for_ever(), name="store-health")

    async def aclose(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await heed_sentinels(self._client)
                if self._reached:
                    await self._client.ping()
                else:
                    self._back(await self._client.info())
            except (RedisError, OSError) as error:
                self._away(error)
            except Exception:
                logger.exception("Redis could not be looked at")
            await asyncio.sleep(LOOK_SECONDS)

    def _back(self, info: Mapping[str, Any]) -> None:
        self._reached = True
        if self._away_since is not None:
            seconds = asyncio.get_running_loop().time() - self._away_since
            logger.warning("Redis answers again, after %.0f s", seconds)
            self._away_since = None
            self._on_reached(info)

    def _away(self, error: Exception) -> None:
        self._reached = False
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            logger.error(
                "Redis cannot be reached: %s. Requests are answered with 503, sockets stay open, "
                "and it is tried again each second",
                str(error) or type(error).__name__,
            )
