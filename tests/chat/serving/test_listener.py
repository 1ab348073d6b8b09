"""Proves chat/serving/listener.py: what a server's connections inherit from its socket."""

from __future__ import annotations

import resource
import socket

import pytest

from chat.serving.listener import UNANSWERED_MS, listen, raise_descriptor_limit

LINUX_ONLY = getattr(socket, "TCP_USER_TIMEOUT", None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_that_is_accepted_gives_up_dead_clients(host: str):
    with listen(host, 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if LINUX_ONLY is not None:
                timeout = accepted.getsockopt(socket.IPPROTO_TCP, LINUX_ONLY)
                assert timeout == UNANSWERED_MS


def test_a_port_that_is_taken_is_refused():
    with listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", listener.getsockname()[1])


def test_a_process_may_open_as_many_files_as_the_system_allows():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    try:
        assert raise_descriptor_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
