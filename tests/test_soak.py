"""What the soak calls flat."""

from __future__ import annotations

import pytest

from bench.soak import Sample, risen


def samples(name: str, *values: float) -> list[Sample]:
    held = {"memory": 100.0, "descriptors": 30.0, "tasks": 50.0, "sockets": 8.0, "logs": 20.0}
    return [Sample(**{**held, name: value}) for value in values]


@pytest.mark.parametrize("name", ["memory", "descriptors", "tasks"])
def test_what_rises_on_and_on_is_told(name: str):
    [told] = risen(samples(name, *range(100, 400, 10)))

    assert told.startswith(f"{name} rose from ")


@pytest.mark.parametrize("name", ["memory", "descriptors", "tasks"])
def test_what_rises_while_the_server_gets_warm_or_goes_up_and_down_is_flat(name: str):
    assert risen(samples(name, *range(10, 100, 10), *[100, 103, 98, 101] * 6)) == []


def test_more_sockets_at_the_end_are_no_leak():
    assert risen(samples("sockets", *range(100))) == []
