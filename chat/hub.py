"""Hub: what the transport's edges (views, pages, consumers) work with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, Histogram

from .conf import ChatSettings
from .guard import Guard
from .identities import Identities
from .limits import Limits
from .loop_probe import LoopProbe
from .metrics import LAG_BUCKETS, StreamCollector
from .ports import Sessions
from .requests import Requests
from .streams import StreamInfo, Streams


class Shared(Protocol):
    """This process's part of what several share."""

    def start(self) -> None:
        """Called once on the running loop."""

    async def streams(self) -> Mapping[str, StreamInfo]:
        """The streams of the other processes, with their sockets. Raises Unavailable."""

    def failing(self) -> Sequence[str]:
        """What of it cannot be used now, by name."""

    async def aclose(self) -> None:
        """After sessions and streams have closed."""


class Hub:
    """The process's sessions, streams, guard, settings and metrics. Belongs to one event loop."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        streams: Streams,
        guard: Guard,
        identities: Identities,
        settings: ChatSettings,
        metrics: CollectorRegistry,
        limits: Limits | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.sessions = sessions
        self.streams = streams
        self.guard = guard
        self.identities = identities
        self.settings = settings
        self.limits = limits or Limits(settings.bounds())
        self.metrics = metrics
        self.requests = Requests()
        self.draining = False
        metrics.register(StreamCollector(streams, self.limits))
        self._tasks = Gauge(
            "webchat_tasks", "Unfinished asyncio tasks of this process.", registry=metrics
        )
        lag = Histogram(
            "webchat_loop_lag_seconds",
            "How late the event loop woke a task that slept.",
            buckets=LAG_BUCKETS,
            registry=metrics,
        )
        self._shared = shared
        self._probe = LoopProbe(lag.observe, warn_above=settings.loop_lag_warning)

    def start(self) -> None:
        """Called once on the running loop, before the first request."""
        loop = asyncio.get_running_loop()
        self._tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        self._probe.start()
        if self._shared is not None:
            self._shared.start()

    async def streams_elsewhere(self) -> Mapping[str, StreamInfo]:
        """The streams of the other processes of the service."""
        return {} if self._shared is None else await self._shared.streams()

    def failing(self) -> Sequence[str]:
        """Why this process should be given no work now; empty: it takes it."""
        shared = () if self._shared is None else self._shared.failing()
        return (*(["draining"] if self.draining else []), *shared)

    async def aclose(self) -> None:
        """Ends every inference as cancelled, then streams, requests and guard. Idempotent."""
        self.draining = True
        await self.sessions.aclose()
        await asyncio.gather(self.streams.aclose(), self.requests.aclose(), self.guard.aclose())
        if self._shared is not None:
            await self._shared.aclose()
        await self._probe.aclose()
