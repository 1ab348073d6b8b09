"""Proves chat/serving/signals.py where the loop is no help. The rest is in tests/border."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from chat.serving import signals
from chat.serving.signals import Shutdown
from webchat_project.testing import running_hub

PATIENCE = 20.0


@pytest.fixture
def _signals_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.django_db
@pytest.mark.usefixtures("_signals_as_they_were")
async def test_a_process_whose_loop_is_blocked_ends_in_time_and_says_by_what(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(signals, "LONGEST_END", 0.05)
    stopped = asyncio.Event()
    async with running_hub() as hub:
        Shutdown(hub, timeout=60, stop=stopped.set)
        signal.raise_signal(signal.SIGINT)
        late = time.monotonic() + PATIENCE
        while not ended and time.monotonic() < late:
            time.sleep(0.01)  # noqa: ASYNC251 - the very thing that nobody may do
        assert ended == [1]
        assert f"it was in {__file__}:" in caplog.text
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()
