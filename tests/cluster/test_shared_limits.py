"""Proves chat/shared_limits.py over a real Redis: a bound is a bound over all processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from chat.errors import RateLimited, TooManySockets
from chat.limits import Bounds
from chat.shared_limits import SharedLimits
from cluster import presence
from cluster.presence import Presence
from sessions_app.inference.errors import Unavailable
from tests.client import PATIENCE
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUNDS = Bounds(prompts_user=3, prompts_address=4, sockets_user=2, sockets_address=3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "TELL_SECONDS", 0.05)


@asynccontextmanager
async def process(redis_url: str) -> AsyncIterator[SharedLimits]:
    async with Redis.from_url(redis_url) as client:
        present = Presence(client, str(uuid4()))
        limits = SharedLimits(BOUNDS, client=client, presence=present)
        present.start()
        yield limits
        await present.aclose()


async def test_prompts_are_bounded_over_all_processes(redis_url: str):
    anna, here, there = f"user:{uuid4()}", str(uuid4()), str(uuid4())
    async with process(redis_url) as one, process(redis_url) as other:
        for limits in (one, other, one):
            await limits.take_prompt(anna, here)
        with pytest.raises(RateLimited) as refusal:
            await other.take_prompt(anna, there)
        assert 1 <= refusal.value.retry_after <= 60
        assert other.refusals == {"prompts_user": 1}
        await other.take_prompt("user:other", here)
        with pytest.raises(RateLimited, match="address"):
            await one.take_prompt("user:third", here)


async def test_prompts_that_come_at_once_are_bounded_over_all_processes(redis_url: str):
    anna, here = f"user:{uuid4()}", str(uuid4())
    async with process(redis_url) as one, process(redis_url) as other:
        taken = await asyncio.gather(
            *(limits.take_prompt(anna, here) for limits in (one, other) * 4), return_exceptions=True
        )
    assert taken.count(None) == BOUNDS.prompts_user
    assert all(isinstance(each, RateLimited) for each in taken if each is not None)


async def test_sockets_are_bounded_over_all_processes_and_free_when_one_goes(redis_url: str):
    anna = f"user:{uuid4()}"

    async def until_refused(limits: SharedLimits, *, refused: bool) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    limits.enter(anna, "here")
                except TooManySockets:
                    if refused:
                        return
                else:
                    limits.leave(anna, "here")
                    if not refused:
                        return
                await asyncio.sleep(0.05)

    async with process(redis_url) as one:
        async with process(redis_url) as other:
            other.enter(anna, "here")
            one.enter(anna, "here")
            await until_refused(one, refused=True)
        await until_refused(one, refused=False)


async def test_without_redis_a_prompt_is_refused_as_unavailable():
    async with Redis.from_url(f"redis://127.0.0.1:{free_port()}", retry=None) as client:
        limits = SharedLimits(BOUNDS, client=client, presence=Presence(client, "alone"))
        with pytest.raises(Unavailable):
            await limits.take_prompt("user:1", "here")
