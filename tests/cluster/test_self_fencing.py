"""A process that was stopped beyond its lease knows that by its own clock, not by the wall's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from uuid import uuid4

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from cluster.leases import Lease, LeaseLost, Leases
from cluster.store import LEASES, Batch, Keys, RedisStore, Written
from sessions_app.testing import Gate, ScriptedEngine
from sessions_app.values import PromptRequest
from tests.cluster.processes import BOUNDS, PATIENCE, Process
from tests.moments.bench import ends, of
from tests.rules import Frame

LEASE = 2.0


def head_of(url: str, conv: str) -> bytes | None:
    with SyncRedis.from_url(url) as redis:
        head: bytes | None = redis.hget(Keys(conv).meta, "head")
        return head


@pytest.fixture
def kill_at_end() -> Iterator[ExitStack]:
    """A process that outlives its test would disturb those after it."""
    with ExitStack() as stack:
        yield stack


def test_it_ends_what_runs_and_writes_nothing_before_it_asks_anybody(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, kill_at_end: ExitStack
):
    gate, conv, anna = Gate("first"), str(uuid4()), f"visitor:{uuid4()}"
    one = Process(
        redis_url, str(uuid4()), ScriptedEngine("So", gate, " be it."), lease_seconds=LEASE
    )
    kill_at_end.callback(one.kill)
    request = PromptRequest(owner=anna, prompt="go", conv_id=conv, idempotency_key="go")
    one.run(one.sessions.submit(request))
    one.run(asyncio.wait_for(gate.reached(), PATIENCE))
    deadline = monotonic() + PATIENCE
    while not of(one.run(frames(one, conv)), "llm.delta"):
        assert monotonic() < deadline, "nobody was shown what was said"
    head = head_of(redis_url, conv)
    # Clocks that are set count for nothing: an hour back, the lease would have an hour to go.
    monkeypatch.setattr(time, "time_ns", lambda: int(monotonic() * 1e9))
    monkeypatch.setattr(time, "time", monotonic)
    found: list[object] = []

    def look() -> None:
        found.extend(
            (one.owns(conv), one.manager.session(conv), dict(one.sessions.owned.leases.losses))
        )
        gate.open()

    one.stop(LEASE + 1, and_then=look)
    assert found == [False, None, {"expired": 1}]
    deadline = monotonic() + PATIENCE
    while inferences := one.run(running()):
        assert monotonic() < deadline, inferences
    assert head_of(redis_url, conv) == head
    monkeypatch.undo()

    assert told_by_another(redis_url, conv) == ["lost"]


def test_a_process_that_is_asked_to_go_waits_for_no_store_that_is_away(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sessions_app.cluster.AWAY_SECONDS", 0.1)
    gate, conv = Gate("first"), str(uuid4())
    one = Process(redis_url, str(uuid4()), ScriptedEngine("So", gate, " be it."))
    request = PromptRequest(owner=f"visitor:{uuid4()}", prompt="go", conv_id=conv)
    one.run(one.sessions.submit(request))
    one.run(asyncio.wait_for(gate.reached(), PATIENCE))
    one.cut_off()
    one.leave()  # long before its lease runs out

    with SyncRedis.from_url(redis_url) as redis:
        redis.hset(Keys(conv).meta, "until", 0)
        redis.zadd(LEASES, {conv: 0})
    assert told_by_another(redis_url, conv) == ["lost"]


def told_by_another(redis_url: str, conv: str) -> list[str]:
    """How it ended, by the process that takes the conversation over."""
    other = Process(redis_url, str(uuid4()), ScriptedEngine("It is."), lease_seconds=LEASE)
    try:
        deadline = monotonic() + PATIENCE
        while not (ended := ends(other.run(frames(other, conv)))):
            assert monotonic() < deadline, "nobody has told the end"
        return ended
    finally:
        other.leave()


async def running() -> list[str]:
    tasks = (task.get_name() for task in asyncio.all_tasks())
    return [name for name in tasks if name.startswith("inference:")]


async def frames(process: Process, conv: str) -> list[Frame]:
    found = await process.streams.log(conv).window()
    return [json.loads(entry.text)["event"] for entry in found]


async def written_late(url: str) -> None:
    """The step that woke the process is the one that writes: no timer was due before it."""
    async with Redis.from_url(url) as client:
        store, conv = RedisStore(client, bounds=BOUNDS), str(uuid4())
        leases = Leases(
            store,
            "here",
            on_lost=lambda lease: None,
            on_mail=lambda conv_id: None,
            seconds=0.2,
        )
        lease = await leases.claim(conv)
        assert isinstance(lease, Lease)
        entry = Written("1-7", 1, 2, "Kind", "{}")
        time.sleep(0.3)  # noqa: ASYNC251 - it stands for SIGSTOP
        with pytest.raises(LeaseLost):
            await leases.append(lease, Batch(0, "", "", 0, [entry]), now_ms=1)
        assert leases.losses == {"expired": 1}
        assert await store.heads([conv]) == [0]
        await leases.aclose()


def test_what_it_was_about_to_write_is_not_sent(redis_url: str):
    asyncio.run(written_late(redis_url))
