"""What the soak calls flat."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from bench.client import Wire
from bench.servers import Ours
from bench.soak import Sample, Soak, risen


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


class Deaf:
    """Stands for a server that accepts no socket, and says where a conversation is."""

    async def open(self, conv: str) -> Wire:
        await asyncio.Event().wait()
        raise AssertionError

    async def get(self, path: str) -> str:
        return '{"running":true,"version":7}'


@pytest.mark.virtual
async def test_a_time_out_says_what_it_waited_for_and_what_the_server_says_of_it(
    capsys: pytest.CaptureFixture[str],
):
    soak = Soak(cast("Ours", Deaf()))
    await soak._again(time.monotonic() + 0.001, "visits", soak._visit)

    assert soak.done["failures"] == soak.done["visits"] > 0
    told = capsys.readouterr().err
    assert "for a new conversation's socket" in told
    assert '"version":7' in told
