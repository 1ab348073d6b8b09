"""What many conversations ask of Redis at once goes there together, and each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from cluster.connect import OPTIONS
from cluster.store import Batch, Bounds, Claim, RedisStore, Written
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUNDS = Bounds(frames=100, bytes=10**6, age_ms=10**9, ttl_seconds=100)
MANY = 300
LINES = 6
"""Connections for all of them: what goes alone needs one each, and waits here in vain."""


@pytest_asyncio.fixture(loop_scope="session")
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=LINES, timeout=60)
    client = Redis.from_pool(pool)
    yield RedisStore(client, bounds=BOUNDS)
    await client.aclose()


async def claimed(store: RedisStore, count: int) -> dict[str, Claim]:
    names = [f"{uuid4()}-{number}" for number in range(count)]
    claims = await asyncio.gather(*(store.claim(name, "here", ttl_ms=60_000) for name in names))
    return dict(zip(names, claims, strict=True))


async def append(store: RedisStore, name: str, claim: Claim, text: str) -> str | None:
    """Writes the first entry of a new conversation."""
    entry = Written(f"1-{len(text)}", 1, len(text), "E", text)
    batch = Batch(prev_seq=0, prev_id="", active="", queued=0, entries=[entry])
    answer = await store.append(name, "here", claim, batch, ttl_ms=60_000, now_ms=1)
    return answer.refusal


async def texts(store: RedisStore, name: str, claim: Claim) -> list[str]:
    page = await store.read(name, epoch=claim.epoch, seq=0, id="", limit=10, now_ms=1)
    return [entry.text for entry in page.entries]


async def round_trips(store: RedisStore) -> int:
    """How often Redis has read something from somebody so far."""
    info = await store.client.info("stats")
    return int(info["total_reads_processed"])


async def test_what_is_asked_at_once_takes_few_round_trips_and_each_has_its_own_answer(
    store: RedisStore,
):
    claims = await claimed(store, MANY)
    before = await round_trips(store)
    refusals = await asyncio.gather(
        *(append(store, name, claim, f"of {name}") for name, claim in claims.items())
    )
    found = await asyncio.gather(*(texts(store, *each) for each in claims.items()))
    assert await round_trips(store) - before < MANY / 2
    assert set(refusals) == {None}
    assert found == [[f"of {name}"] for name in claims]


async def test_a_refusal_is_only_whose_it_is(store: RedisStore):
    claims = await claimed(store, 20)
    stale = next(iter(claims))
    claims[stale] = claims[stale]._replace(fence=claims[stale].fence + 1)
    refusals = await asyncio.gather(
        *(append(store, name, claim, "x") for name, claim in claims.items())
    )
    assert refusals == ["fenced"] + 19 * [None]


async def test_a_store_that_forgot_its_scripts_is_told_them_again(store: RedisStore):
    claims = await claimed(store, 20)
    await store.client.script_flush()
    refusals = await asyncio.gather(
        *(append(store, name, claim, "x") for name, claim in claims.items())
    )
    assert set(refusals) == {None}


async def test_who_is_cancelled_leaves_the_others_alone(store: RedisStore):
    claims = await claimed(store, MANY)
    writes = [
        asyncio.create_task(append(store, name, claim, "x"), name=f"append:{name}")
        for name, claim in claims.items()
    ]
    await asyncio.sleep(0)
    for task in writes[::2]:
        task.cancel()
    ended = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended[::2])
    assert set(ended[1::2]) == {None}


async def test_a_store_that_is_away_is_everybody_s_error_and_forgotten_when_it_is_back(
    store: RedisStore,
):
    away = RedisStore(Redis(port=free_port(), retry=OPTIONS["retry"]), bounds=BOUNDS)
    asked = [away.claim(str(number), "here", ttl_ms=1000) for number in range(20)]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(end, RedisError | OSError) for end in ended)
    again = await asyncio.gather(away.claim("x", "here", ttl_ms=1), return_exceptions=True)
    assert isinstance(again[0], RedisError | OSError)
    await away.client.aclose()
    assert len(await claimed(store, 3)) == 3
