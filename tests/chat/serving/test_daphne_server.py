"""Daphne's connections are looked after, and nobody waits for all of them."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chat.serving import daphne_socket
from chat.serving.daphne_socket import LOOK_SECONDS, LOOKED_AFTER_AT_ONCE, DaphneServer


class Looked:
    """A connection that knows how often it was looked after."""

    times = 0

    def check_timeouts(self) -> None:
        self.times += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(daphne_socket, "reactor", clock)
    return clock


def test_a_crowd_is_looked_after_a_few_at_a_time(clock: Clock):
    server = DaphneServer(None, endpoints=["unused"])
    crowd = [Looked() for _ in range(2 * LOOKED_AFTER_AT_ONCE + 1)]
    server.connections = {each: {} for each in crowd}
    server.timeout_checker()
    assert sum(each.times for each in crowd) == LOOKED_AFTER_AT_ONCE
    del server.connections[crowd[-1]]  # gone before its turn
    for _ in range(3):
        clock.advance(0)
    assert [each.times for each in crowd] == [1] * (len(crowd) - 1) + [0]
    clock.advance(LOOK_SECONDS)
    for _ in range(3):
        clock.advance(0)
    assert [each.times for each in crowd] == [2] * (len(crowd) - 1) + [0]


def test_nobody_to_look_after_is_no_end(clock: Clock):
    server = DaphneServer(None, endpoints=["unused"])
    server.connections = {}
    server.timeout_checker()
    late = Looked()
    server.connections = {late: {}}
    clock.advance(LOOK_SECONDS)
    assert late.times == 1
