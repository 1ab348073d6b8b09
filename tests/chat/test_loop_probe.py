"""The probe measures how late the loop is, and says so when it is too late."""

from __future__ import annotations

import asyncio
import time

import pytest

from chat.loop_probe import LoopProbe


async def test_what_blocks_the_loop_is_measured_and_told(caplog: pytest.LogCaptureFixture):
    lags: list[float] = []
    measured = asyncio.Event()

    def observe(lag: float) -> None:
        lags.append(lag)
        measured.set()

    probe = LoopProbe(observe, warn_above=0.2)
    probe.start()
    probe.start()
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - the very thing that is measured
    async with asyncio.timeout(30):
        await measured.wait()
    await probe.aclose()
    assert len(lags) == 1
    assert lags[0] >= 0.2
    assert "the event loop was" in caplog.text
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "loop-probe"]


@pytest.mark.virtual
async def test_a_loop_that_is_in_time_is_quiet(caplog: pytest.LogCaptureFixture):
    lags: list[float] = []
    probe = LoopProbe(lags.append, warn_above=0.1)
    probe.start()
    await asyncio.sleep(60.1)
    await probe.aclose()
    assert len(lags) == 240
    assert max(lags) < 0.001
    assert caplog.text == ""
