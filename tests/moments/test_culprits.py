"""Code of an app that blocks or will not stop: its inference ends in time, and it is named."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from chat.loop_probe import LoopProbe
from sessions_app.inference.tools import tool
from sessions_app.metrics import SessionCollector
from sessions_app.testing import Gate, IgnoreCancel
from tests.metrics import scraped
from tests.moments.bench import Bench, call, ends, model, of


def abandoned(bench: Bench, kind: str) -> float:
    registry = CollectorRegistry()
    registry.register(SessionCollector(bench.manager.statistics))
    return scraped(registry)["webchat_abandoned_total"][(kind,)]


async def test_a_loop_that_a_tool_blocks_is_told_of_while_it_is_blocked(
    caplog: pytest.LogCaptureFixture,
):
    def watchdog() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.threadName == "loop-watchdog"]

    @tool
    async def look() -> str:
        for _ in range(500):
            time.sleep(0.02)  # noqa: ASYNC251 - the very thing it may not do
            if watchdog():
                break
        return "seen"

    measured = asyncio.Event()

    def observe(lag: float) -> None:
        if lag > 0.1:
            measured.set()

    probe = LoopProbe(observe, warn_above=0.1)
    probe.start()
    bench = Bench(model([call("look", "c1")], ["done"]), tools=[look])
    await bench.ask("hi")
    await bench.idle()
    async with asyncio.timeout(30):
        await measured.wait()
    await probe.aclose()
    assert ends(await bench.lawful()) == ["completed"]
    await bench.aclose()
    told = watchdog()[0]
    assert told.startswith("the event loop is blocked since")
    assert "in task call:c1, by " in told
    assert f"{__file__}:" in told
    assert " in look, called by " in told


@pytest.mark.virtual
async def test_an_engine_that_swallows_its_cancellation_ends_at_the_grace_and_is_named(
    caplog: pytest.LogCaptureFixture,
):
    gate = Gate("stubborn")
    bench = Bench(model(["I say", IgnoreCancel(gate)]))
    before = abandoned(bench, "engine")
    await bench.ask("hi")
    await gate.reached()
    clock = asyncio.get_running_loop()
    began = clock.time()
    await bench.cancel()
    await bench.idle()
    assert clock.time() - began == 5
    assert ends(await bench.lawful()) == ["cancelled"]
    assert abandoned(bench, "engine") - before == 1
    assert "engine scripted did not stop within 5 s" in caplog.text
    gate.open()
    await asyncio.sleep(1)
    await bench.lawful()
    await bench.aclose()


async def test_a_thread_that_never_returns_is_told_of_and_its_inference_goes_on(
    caplog: pytest.LogCaptureFixture,
):
    release = threading.Event()

    @tool(timeout=0.1)
    def stuck() -> str:
        release.wait(30)
        return "late"

    bench = Bench(model(["I look", call("stuck", "c1")], ["never mind"]), tools=[stuck])
    before = abandoned(bench, "thread")
    await bench.ask("hi")
    await bench.idle()
    frames = await bench.lawful()
    assert ends(frames) == ["completed"]
    assert of(frames, "tool.done")[0]["data"]["status"] == "timeout"
    assert abandoned(bench, "thread") - before == 1
    assert (
        "tool stuck did not return from its thread webchat-tool-1 and was abandoned; "
        "calls of tools hold 1 of 16 threads"
    ) in caplog.text
    release.set()
    await bench.aclose()
