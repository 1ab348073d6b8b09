"""What the streams count, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from types import ModuleType
from typing import cast

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from chat.counts import CLOSE_REASONS
from chat.limits import Limits
from chat.log import Window
from chat.metrics import StreamCollector
from chat.pool import CLOSE_SLOW, Flow
from chat.streams import Streams
from sessions_app.inference.events import Event, Log
from tests.chat.wire import ORIGIN, Tab, inference
from tests.metrics import Samples, scraped

pytestmark = pytest.mark.virtual


@pytest_asyncio.fixture
async def streams() -> AsyncIterator[Streams]:
    made = Streams(window=Window(frames=8))
    yield made
    await made.aclose()


def read(streams: Streams) -> Samples:
    registry = CollectorRegistry()
    registry.register(StreamCollector(streams, Limits()))
    return scraped(registry)


async def publish(streams: Streams, *told: Event, conv_id: str = "conv") -> None:
    for event in told:
        streams.sink(conv_id).publish(event, ORIGIN)
    await streams.sink(conv_id).flush()


async def test_every_label_has_its_values_before_anything_happens(streams: Streams):
    seen = read(streams)
    assert set(seen["webchat_resumes_total"]) == {
        (result,) for result in ("resumed", "epoch", "window", "ahead", "diverged")
    }
    assert set(seen["webchat_snapshots_total"]) == {
        (reason,) for reason in ("first", "slow", "epoch", "window", "ahead", "diverged")
    }
    assert set(seen["webchat_socket_closes_total"]) >= {("client",), ("slow",), ("other",)}
    assert {value for values in seen.values() for value in values.values()} == {0}


async def test_frames_are_counted_where_they_are_appended_and_for_each_socket(streams: Streams):
    tabs = [Tab(streams, "conv"), Tab(streams, "conv")]
    for tab in tabs:
        tab.join()
        await tab.saw("timeline.snapshot")
    await publish(streams, *inference(1, "hello"))
    for tab in tabs:
        await tab.level()
    head = streams.head_seq("conv")
    seen = read(streams)
    assert seen["webchat_frames_total"][()] == head > 0
    assert seen["webchat_frame_bytes_total"][()] == streams.size("conv")
    assert seen["webchat_frames_sent_total"][()] == 2 * head
    assert (seen["webchat_sockets"][()], seen["webchat_sockets_behind"][()]) == (2, 0)
    assert seen["webchat_logs"][()] == 1
    for tab in tabs:
        await tab.drop()
    assert read(streams)["webchat_sockets"][()] == 0


async def test_resumes_and_snapshots_are_counted_by_how_they_went(streams: Streams):
    await publish(streams, *inference(1, "hello"))
    epoch, head = streams.log("conv").epoch, streams.head_seq("conv")
    await publish(streams, *inference(2, "a", "b"), *inference(3, "c"))
    newest = streams.head_seq("conv")
    for cursor in (None, f"{epoch}.{newest - 1}", f"{epoch}.1", f"{epoch + 1}.{head}"):
        tab = Tab(streams, "conv")
        tab.join(cursor)
        await tab.saw("ws.hello")
        await tab.level()
        await tab.drop()
    seen = read(streams)
    resumes = {result: n for (result,), n in seen["webchat_resumes_total"].items() if n}
    snapshots = {reason: n for (reason,), n in seen["webchat_snapshots_total"].items() if n}
    assert resumes == {"resumed": 1, "window": 1, "epoch": 1}
    assert snapshots == {"first": 1, "window": 1, "epoch": 1}
    assert seen["webchat_socket_closes_total"]["client",] == 4


async def test_a_slow_socket_shows_in_the_outboxes_then_in_drops_and_closes(streams: Streams):
    tab = Tab(streams, "conv", flow=Flow(outbox_frames=4))
    tab.join()
    await tab.saw("timeline.snapshot")
    tab.stall()
    for number in range(3):
        await publish(streams, Log(message=f"line {number}"))
    await asyncio.sleep(1)
    seen = read(streams)
    # The first is on its way; the others wait.
    assert seen["webchat_outbox_frames"][()] == seen["webchat_outbox_frames_max"][()] == 2
    for number in range(5):
        await publish(streams, Log(message=f"more {number}"))
    await asyncio.sleep(1)
    seen = read(streams)
    assert seen["webchat_drops_total"]["outbox_full",] == 1
    assert seen["webchat_sockets_behind"][()] == 1
    assert await tab.closed() == CLOSE_SLOW
    assert read(streams)["webchat_socket_closes_total"]["slow",] == 1


async def test_an_event_that_cannot_be_written_is_a_drop(streams: Streams):
    await publish(streams, Log(message="fine"), cast("Event", object()))
    seen = read(streams)
    assert seen["webchat_drops_total"]["unwritable",] == 1
    assert seen["webchat_frames_total"][()] == 1


@pytest.mark.parametrize("name", ["chat.consumers", "chat.control", "chat.pool"])
def test_every_code_that_closes_a_socket_has_a_reason(name: str):
    module: ModuleType = import_module(name)
    codes = {
        value
        for key, value in vars(module).items()
        if key.startswith("CLOSE_") and isinstance(value, int)
    }
    assert {code for code in codes if code >= 1000} <= CLOSE_REASONS.keys()
