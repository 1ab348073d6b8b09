"""Presence: what each process says of itself. Who stops saying it is gone a few seconds later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .store import NAMESPACE
from .tasks import end
from .together import together

logger = logging.getLogger(__name__)

TELL_SECONDS = 2.0
LASTS_SECONDS = 10
PROCESSES = f"{NAMESPACE}:processes"

Tell: TypeAlias = Callable[[], Awaitable[bytes]]
Hear: TypeAlias = Callable[[Sequence[bytes]], None]


class Presence:
    """Owns the task that tells. A topic is a name that tellers and hearers have agreed on.

    Belongs to one event loop.
    """

    def __init__(self, client: Redis, process: str) -> None:
        self._client = client
        self._trips = together(client, most=100, trips=1)
        self._process = process
        self._told: dict[str, Tell] = {}
        self._heard: dict[str, Hear] = {}
        self._task: asyncio.Task[None] | None = None

    def tell(self, topic: str, what: Tell) -> None:
        """Has this process say `what` under that topic, each two seconds."""
        self._told[topic] = what

    def hear(self, topic: str, hear: Hear) -> None:
        """Has `hear` given what the other processes say, each two seconds."""
        self._heard[topic] = hear

    async def others(self, topic: str) -> list[bytes]:
        """What the other living processes say. Raises RedisError."""
        client: Any = self._client
        names = [name.decode() for name in await client.smembers(PROCESSES)]
        others = sorted(name for name in names if name != self._process)
        if not others:
            return []
        found = await self._trips.ask_all("GET", [_key(topic, name) for name in others])
        gone = [name for name, said in zip(others, found, strict=True) if said is None]
        if gone:
            # One that was only stopped for a while says again that it is there.
            await client.srem(PROCESSES, *gone)
        return [said for said in found if said is not None]

    def start(self) -> None:
        self._task = asyncio.create_task(self._tell_for_ever(), name="presence")

    async def aclose(self) -> None:
        """Ends the task, and is gone at once for the others."""
        if self._task is None:
            return
        await end(self._task)
        with suppress(RedisError, OSError):
            client: Any = self._client
            await client.srem(PROCESSES, self._process)
            await self._trips.ask_all("DEL", [_key(topic, self._process) for topic in self._told])

    async def _tell_for_ever(self) -> None:
        while True:
            try:
                await self._tell_all()
                for topic, hear in self._heard.items():
                    hear(await self.others(topic))
            except (RedisError, OSError) as error:
                logger.debug("nobody can be told of this process: %s", error)
            except Exception:
                logger.exception("this process could not say how it is")
            await asyncio.sleep(TELL_SECONDS)

    async def _tell_all(self) -> None:
        said = {topic: await what() for topic, what in self._told.items()}
        client: Any = self._client
        for topic, value in said.items():
            await client.set(_key(topic, self._process), value, ex=LASTS_SECONDS)
        await client.sadd(PROCESSES, self._process)
        await client.expire(PROCESSES, 2 * LASTS_SECONDS)


def _key(topic: str, process: str) -> str:
    return f"{NAMESPACE}:process:{process}:{topic}"
