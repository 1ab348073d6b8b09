"""Proves chat/layer.py: one more socket costs the same however many are open."""

from __future__ import annotations

import sys
import time
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any

import pytest

from chat.layer import CLEANED_EVERY, ProcessChannelLayer
from chat.testing import ChatClient
from webchat_project.testing import running_hub

FEW, MANY = 10, 150


async def calls_to_open(stack: AsyncExitStack) -> int:
    """Calls of Python functions until a new conversation's socket has been greeted."""
    calls = 0

    def counted(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        await opened(stack)
    finally:
        sys.setprofile(before)
    return calls


async def opened(stack: AsyncExitStack) -> None:
    socket = await stack.enter_async_context(ChatClient().socket())
    await socket.until("timeline.snapshot")


@pytest.mark.virtual
async def test_a_connect_costs_the_same_however_many_sockets_are_open(settings: Any):
    settings.WEBCHAT = {**settings.WEBCHAT, "SOCKETS_PER_USER": MANY + FEW}
    settings.WEBCHAT["SOCKETS_PER_ADDRESS"] = MANY + FEW
    async with running_hub(), AsyncExitStack() as stack:
        for _ in range(FEW):
            await opened(stack)
        beside_few = await calls_to_open(stack)
        for _ in range(MANY - FEW):
            await opened(stack)
        beside_many = await calls_to_open(stack)
    # Timers are kept in a heap, which is a few steps deeper now.
    assert beside_many < beside_few + 50


async def test_what_is_too_old_is_still_forgotten(monkeypatch: pytest.MonkeyPatch):
    now = time.time()
    layer = ProcessChannelLayer(expiry=60)
    await layer.send("specific!a", {"type": "old"})
    monkeypatch.setattr(time, "time", lambda: now + 61)
    monkeypatch.setattr(time, "monotonic", lambda: layer._cleaned + CLEANED_EVERY)
    await layer.send("specific!b", {"type": "new"})
    assert (await layer.receive("specific!b"))["type"] == "new"
    assert layer.channels == {}


async def test_a_socket_that_is_open_for_days_still_hears_its_group(
    monkeypatch: pytest.MonkeyPatch,
):
    now = time.time()
    layer = ProcessChannelLayer()
    await layer.group_add("group", "specific!a")
    monkeypatch.setattr(time, "time", lambda: now + 3 * 86_400)
    monkeypatch.setattr(time, "monotonic", lambda: layer._cleaned + CLEANED_EVERY)
    await layer.send("specific!b", {"type": "anything"})  # whoever sends has it cleaned
    await layer.group_send("group", {"type": "said"})
    assert "specific!a" in layer.channels, "nobody is in the group"
    assert (await layer.receive("specific!a"))["type"] == "said"
