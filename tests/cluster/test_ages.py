"""Nothing lies in Redis for ever: every key has an age, and what may grow has a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic
from uuid import uuid4

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from chat.limits import Bounds as LimitBounds
from chat.shared_limits import SharedLimits
from cluster.presence import PROCESSES, Presence
from cluster.store import Bounds, RedisStore
from sessions_app.inference.errors import ConversationNotFound, KeyReused
from sessions_app.values import PromptRequest, Submitted
from tests.cluster.processes import PATIENCE, Process
from tests.redis_server import redis_server

BOUNDS = Bounds(frames=10, bytes=10**6, age_ms=10**7, ttl_seconds=100, keys=3, key_seconds=1000)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis in which nothing lies but what these tests have put there."""
    with redis_server() as url:
        yield url


def ask(process: Process, owner: str, conv: str, prompt: str) -> tuple[Submitted, bool]:
    request = PromptRequest(owner=owner, prompt=prompt, conv_id=conv, idempotency_key=prompt)
    return process.run(process.sessions.submit(request))


def test_every_key_has_an_age_whatever_was_asked(
    redis_url: str, processes: tuple[Process, Process]
):
    one, other = processes
    anna, conv = f"visitor:{uuid4()}", str(uuid4())
    for number in range(4):
        ask(one, anna, conv, f"here {number}")
        ask(other, anna, conv, f"there {number}")
    other.run(other.sessions.set_step_mode(conv, True, by="anna"))
    one.run(one.sessions.cancel(conv))
    other.run(other.sessions.inspect(conv))
    with pytest.raises(ConversationNotFound):
        other.run(other.sessions.evict(str(uuid4())))
    other.run(other.store.claim(str(uuid4()), "nobody", ttl_ms=100))
    other.run(other.sessions.transfer(anna, f"user:{uuid4()}"))
    ask(one, anna, str(uuid4()), "another")

    async def what_processes_say() -> None:
        async with Redis.from_url(redis_url) as client:
            present = Presence(client, "here")
            await SharedLimits(LimitBounds(), client=client, presence=present).take_prompt(anna, "")
            present.start()
            deadline = monotonic() + PATIENCE
            while not await client.exists(PROCESSES):
                assert monotonic() < deadline, "no process says that it is there"
                await asyncio.sleep(0.01)
            with_ages(redis_url)
            await present.aclose()

    asyncio.run(what_processes_say())


def with_ages(url: str) -> None:
    with SyncRedis.from_url(url) as redis:
        ages = {key.decode(): redis.ttl(key) for key in redis.scan_iter()}
    kinds = {part for key in ages for part in key.split(":")}
    assert {"meta", "log", "snap", "record", "turns", "mail", "leases", "owner", "keys"} <= kinds
    assert {"keys-at", "inbox", "limits", "processes"} <= kinds
    assert not [key for key, seconds in ages.items() if seconds == -1]


def test_what_somebody_owns_does_not_grow_old(redis_url: str):
    """A pause may last for days, in which nothing is written."""

    async def owned_for_long() -> None:
        async with Redis.from_url(redis_url) as client:
            store, conv = RedisStore(client, bounds=BOUNDS), str(uuid4())
            await store.post(conv, b"{}")
            claim = await store.claim(conv, "here", ttl_ms=1000)
            keys = [key async for key in client.scan_iter(f"*{conv}*")]
            assert len(keys) == 2
            for key in keys:
                await client.expire(key, 5)
            await store.renew(conv, "here", claim, ttl_ms=1000)
            assert [await client.ttl(key) > 90 for key in keys] == [True, True]

    asyncio.run(owned_for_long())


def test_of_the_keys_of_an_owner_the_oldest_go(redis_url: str):
    async def many() -> None:
        async with Redis.from_url(redis_url) as client:
            store, anna = RedisStore(client, bounds=BOUNDS), f"user:{uuid4()}"
            for number in range(5):
                assert (await store.reserve_key(anna, str(number), "name", "conv")).new
            assert not (await store.reserve_key(anna, "2", "name", "conv")).new
            assert (await store.reserve_key(anna, "0", "name", "conv")).new
            await store.answer_key(anna, "1", "name", "conv", "{}")
            assert await client.hlen(f"webchat:keys:{anna}") == 3
            assert await client.zcard(f"webchat:keys-at:{{webchat:keys:{anna}}}") == 3

            briefly = RedisStore(client, bounds=BOUNDS._replace(key_seconds=1))
            deadline = monotonic() + PATIENCE
            while not (await briefly.reserve_key(anna, "0", "name", "conv")).new:
                assert monotonic() < deadline, "a key is kept for ever"
                await asyncio.sleep(0.1)

    asyncio.run(many())


def test_a_key_has_its_first_answer_however_many_prompts_came_after_it(
    processes: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
):
    """Also where the conversation's record has forgotten it."""
    monkeypatch.setattr("sessions_app.manager.KEPT_KEYS", 1)
    one, other = processes
    anna, conv = f"visitor:{uuid4()}", str(uuid4())
    first = ask(one, anna, conv, "first")
    ask(other, anna, conv, "second")
    one.run(one.sessions.cancel(conv))
    other.run(other.sessions.cancel(conv))
    assert ask(other, anna, conv, "first") == (first[0], True)
    assert ask(one, anna, conv, "first") == (first[0], True)
    with pytest.raises(KeyReused):
        ask(other, anna, str(uuid4()), "first")
