"""RedisLogs: the logs that processes share, and how they wake each other's readers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from cluster.leases import LeaseLost, Leases
from cluster.store import Extra, RedisStore
from cluster.tasks import end

from .guard import digest
from .log import FrameLog, NowMs, Window, wall_ms
from .redis_log import RedisFrameLog, RedisLogWriter, reached

logger = logging.getLogger(__name__)

COALESCE_SECONDS = 0.02
RETRY_SECONDS = 1.0


class Layer(Protocol):
    """A channel layer with groups."""

    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...


class RedisLogs:
    """`streams.Logs` over a store. Belongs to one event loop.

    What the layer loses, the followers' ticks find: every message of it is only a hint.
    """

    def __init__(
        self,
        store: RedisStore,
        leases: Leases,
        *,
        window: Window,
        extra: Callable[[str], Extra],
        layer: Layer,
        wake: Callable[[str], None],
        now_ms: NowMs = wall_ms,
    ) -> None:
        self._store = store
        self._leases = leases
        self._window = window
        self._extra = extra
        self._now_ms = now_ms
        self._layer = layer
        self._wake = wake
        self._channel: str | None = None
        self._followed: dict[str, str] = {}
        self._grown: set[str] = set()
        self._changed: set[str] = set()
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def log(self, conv_id: str) -> RedisFrameLog:
        return RedisFrameLog(
            conv_id,
            store=self._store,
            leases=self._leases,
            window=self._window,
            now_ms=self._now_ms,
        )

    def writer(self, log: FrameLog) -> RedisLogWriter:
        """Raises LeaseLost where this process does not own the conversation."""
        assert isinstance(log, RedisFrameLog)
        lease = self._leases.get(log.conv_id)
        if lease is None:
            raise LeaseLost(f"{log.conv_id} is not this process's")
        return RedisLogWriter(log, lease, extra=lambda: self._extra(log.conv_id))

    @property
    def are_here(self) -> bool:
        return False

    def grew(self, conv_id: str) -> None:
        self._grown.add(conv_id)
        self._work.set()

    async def heads(self, conv_ids: Sequence[str]) -> Mapping[str, int]:
        found = await reached(self._store.heads(conv_ids))
        return dict(zip(conv_ids, found, strict=True))

    def follow(self, conv_id: str) -> None:
        self._followed[group_of(conv_id)] = conv_id
        self._changed.add(conv_id)
        self._work.set()

    def unfollow(self, conv_id: str) -> None:
        self._followed.pop(group_of(conv_id), None)
        self._changed.add(conv_id)
        self._work.set()

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._speak(), name="log-caller"),
            asyncio.create_task(self._listen(), name="log-listener"),
        ]

    async def aclose(self) -> None:
        await end(*self._tasks)

    async def _speak(self) -> None:
        """Says what has grown, each conversation once in `COALESCE_SECONDS`."""
        while True:
            await self._work.wait()
            self._work.clear()
            changed, self._changed = self._changed, set()
            grown, self._grown = self._grown, set()
            try:
                for conv_id in tuple(changed):
                    await self._join(conv_id)
                    changed.discard(conv_id)
                await asyncio.gather(*(self._call(conv_id) for conv_id in grown))
            except Exception as error:  # noqa: BLE001 - each layer has its own errors
                logger.debug("the layer took no call: %s", error)
                # Calls are hints, and lost; but who is in no group is never called.
                self._changed |= changed
                self._work.set()
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(COALESCE_SECONDS)

    async def _join(self, conv_id: str) -> None:
        group = group_of(conv_id)
        if self._channel is None:
            self._channel = await self._layer.new_channel()
        if group in self._followed:
            await self._layer.group_add(group, self._channel)
        else:
            await self._layer.group_discard(group, self._channel)

    async def _call(self, conv_id: str) -> None:
        await self._layer.group_send(group_of(conv_id), {"type": "log.grew", "conv_id": conv_id})

    async def _listen(self) -> None:
        while True:
            try:
                if self._channel is None:
                    self._channel = await self._layer.new_channel()
                message = await self._layer.receive(self._channel)
                self._wake(message["conv_id"])
            except Exception as error:  # noqa: BLE001 - each layer has its own errors
                logger.debug("the channel layer cannot be heard: %s", error)
                await asyncio.sleep(RETRY_SECONDS)


def group_of(conv_id: str) -> str:
    """The group in which each process that follows the conversation has one channel."""
    return f"log.{digest(conv_id)}"
