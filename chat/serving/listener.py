"""The listening socket, set up so that dead clients do not hold what they had."""

from __future__ import annotations

import resource
import socket

BACKLOG = 2048  # a reconnect storm comes at once
UNANSWERED_MS = 30_000
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, probes


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the first address `host` stands for. Raises OSError.

    Every connection it accepts inherits: keep-alives, and an end 30 seconds after the client last
    acknowledged bytes that were sent to it (where the system knows TCP_USER_TIMEOUT), since no
    server gives up a reader that never reads.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {**KEEPALIVE, "TCP_USER_TIMEOUT": UNANSWERED_MS}.items():
            if (option := getattr(socket, name, None)) is not None:
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def raise_descriptor_limit() -> int:
    """Lets this process open as many files and sockets as the system allows it; says how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
