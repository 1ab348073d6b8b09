"""What one process of many is made of: the store in Redis, sessions over it, shared logs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

from redis.exceptions import RedisError

from chat.conf import ChatSettings
from chat.elsewhere import Elsewhere
from chat.log import wall_ms
from chat.redis_logs import Layer, RedisLogs
from chat.shared_limits import SharedLimits
from chat.streams import StreamInfo, Streams
from cluster.connect import connect
from cluster.health import Health
from cluster.metrics import ClusterCollector
from cluster.presence import Presence
from cluster.store import Bounds, RedisStore
from sessions_app.cluster import ClusterSessions
from sessions_app.conf import SessionSettings
from sessions_app.manager import SessionManager

from .redis_checks import tell_findings


class Told(logging.Filter):
    """Leaves out that Redis is away: `Health` says it once.

    Two tasks of the layer share a connection, and trip over each other where it breaks: what the
    second one says of it (an AttributeError, a RuntimeError) came of the same.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            if isinstance(error, RedisError | OSError):
                return False
            error = error.__cause__ or error.__context__
        return True


class Cluster:
    """This process's part of the service that shares one Redis. Belongs to one event loop."""

    def __init__(self, chat: ChatSettings, sessions: SessionSettings, *, layer: Layer) -> None:
        self.client = connect(chat.redis_url)
        self.health = Health(self.client, on_reached=tell_findings)
        self.process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        logging.getLogger("channels_redis.pubsub").addFilter(Told())
        window = chat.window()
        store = RedisStore(
            self.client,
            bounds=Bounds(
                frames=window.frames,
                bytes=window.bytes,
                age_ms=round(window.seconds * 1000),
                ttl_seconds=round(sessions.conversation_ttl),
                key_seconds=round(sessions.idempotency_ttl),
            ),
        )
        self._wake: Callable[[str], None] = lambda conv_id: None
        self.presence = Presence(self.client, self.process)
        self.limits = SharedLimits(chat.bounds(), client=self.client, presence=self.presence)
        self.sessions = ClusterSessions(
            store,
            process=self.process,
            presence=self.presence,
            lease_seconds=chat.lease_seconds,
            now_ms=wall_ms,
        )
        self.collector = ClusterCollector(self.health, self.sessions.owned.leases)
        self.logs = RedisLogs(
            store,
            self.sessions.owned.leases,
            window=window,
            extra=self.sessions.owned.extra,
            layer=layer,
            wake=lambda conv_id: self._wake(conv_id),
        )

    def bind(self, manager: SessionManager, streams: Streams) -> None:
        """Says who has this process's sessions, and which streams other processes wake."""
        self._wake = streams.wake
        self._elsewhere = Elsewhere(self.presence, streams)
        self.sessions.bind(manager, streams, watched=self._elsewhere.watched)

    async def streams(self) -> Mapping[str, StreamInfo]:
        return await self._elsewhere.streams()

    def failing(self) -> Sequence[str]:
        return () if self.health.reached else ("redis",)

    def start(self) -> None:
        self.health.start()
        self.presence.start()
        self.sessions.start()
        self.logs.start()

    async def aclose(self) -> None:
        # At once: where Redis does not answer, each waits for it as long as anybody does.
        await asyncio.gather(self.logs.aclose(), self.presence.aclose(), self.health.aclose())
        await self.client.aclose()
