"""Inbox: what the processes tell each other directly. A hint, or an answer somebody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .store import NAMESPACE, source
from .tasks import end

logger = logging.getLogger(__name__)

KEPT = 10_000
KEPT_SECONDS = 120
BLOCK_MS = 2_000
RETRY_SECONDS = 0.5


class Inbox:
    """One stream for each process, read by one task. Belongs to one event loop.

    What is sent to a process that is gone is forgotten with its stream.
    """

    def __init__(
        self, client: Redis, process: str, *, on_message: Callable[[dict[bytes, bytes]], None]
    ) -> None:
        self._client = client
        self._post = client.register_script(source("post"))
        self._process = process
        self._on_message = on_message
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._read(), name="inbox")

    async def send(self, process: str, message: dict[str, bytes]) -> None:
        """Leaves a message. Raises nothing: who waits for it has a bound of its own."""
        fields = [part for field in message.items() for part in field]
        try:
            await self._post(keys=[_key(process)], args=[KEPT, KEPT_SECONDS, *fields])
        except (RedisError, OSError) as error:
            logger.debug("process %s could not be told: %s", process, error)

    async def aclose(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def _read(self) -> None:
        key, last = _key(self._process), b"0"
        while True:
            try:
                found: Any = await self._client.xread({key: last}, count=256, block=BLOCK_MS)
            except (RedisError, OSError) as error:
                logger.debug("the inbox cannot be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for _, messages in _streams(found):
                for id, fields in messages:
                    last = id
                    try:
                        self._on_message(fields)
                    except Exception:
                        logger.exception("a message of another process could not be taken")


def _streams(found: Any) -> Any:
    """RESP2 answers a list, RESP3 a mapping of lists."""
    if isinstance(found, dict):
        return [(name, [each for part in parts for each in part]) for name, parts in found.items()]
    return found or ()


def _key(process: str) -> str:
    return f"{NAMESPACE}:inbox:{process}"
