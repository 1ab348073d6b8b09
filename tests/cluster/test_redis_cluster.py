"""A Redis Cluster: each conversation is at the node of its slot, wherever that goes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import count
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
import pytest_asyncio
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.core.checks import run_checks
from redis import Redis as SyncRedis
from redis.asyncio import BlockingConnectionPool
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, RedisError

from chat.errors import RateLimited
from chat.limits import Bounds as LimitBounds
from chat.shared_limits import SharedLimits
from cluster.connect import OPTIONS, connect, layer_host
from cluster.inbox import Inbox
from cluster.presence import Presence
from cluster.redis_cluster import ClusterRedis, nodes_in
from cluster.store import LEASES, Batch, Bounds, Claim, Keys, RedisStore, Written
from tests.client import PATIENCE, visitor
from tests.cluster.test_sentinel import LEASE, accepted, asked, heard_by
from tests.live import NO_LIMITS, SHARED, live_server
from tests.ports import free_port
from tests.redis_server import ClusteredRedis, command
from tests.rules import broken_rules

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUNDS = Bounds(frames=1000, bytes=10**6, age_ms=10**9, ttl_seconds=100)
TTL_MS = 600_000


@pytest.fixture(scope="module")
def redis() -> Iterator[ClusteredRedis]:
    cluster = ClusteredRedis()
    yield cluster
    cluster.stop()


@pytest.fixture
def doomed() -> Iterator[ClusteredRedis]:
    """One of a test's own, that it may break."""
    cluster = ClusteredRedis(replicas=1, timeout=3)
    yield cluster
    cluster.stop()


Patient: TypeAlias = Callable[[ClusteredRedis], ClusterRedis]


@pytest_asyncio.fixture(loop_scope="module")
async def patient() -> AsyncIterator[Patient]:
    """Makes clients that wait for as long as it takes: nothing depends on the machine's speed."""
    pool = partial(
        BlockingConnectionPool,
        **{**OPTIONS, "socket_timeout": PATIENCE, "max_connections": 8, "timeout": PATIENCE},
    )
    async with AsyncExitStack() as stack:

        def client(redis: ClusteredRedis) -> ClusterRedis:
            nodes = nodes_in(redis.url)
            assert nodes is not None
            made = ClusterRedis(nodes, pool=pool)
            stack.push_async_callback(made.aclose)
            return made

        yield client


@pytest.fixture
def client(redis: ClusteredRedis, patient: Patient) -> ClusterRedis:
    return patient(redis)


def conversations_at(redis: ClusteredRedis, number: int) -> Iterator[str]:
    """New ones whose slot that node has."""
    for _ in count():
        conv = str(uuid4())
        if redis.port_of(Keys(conv).meta) == redis.ports[number]:
            yield conv


def entry(seq: int) -> Written:
    return Written(f"{seq}-7", seq, 1, "E", str(seq))


async def write(store: RedisStore, conv: str, claim: Claim, seq: int) -> None:
    last = f"{seq - 1}-7" if seq > 1 else ""
    batch = Batch(prev_seq=seq - 1, prev_id=last, active="", queued=0, entries=[entry(seq)])
    answer = await store.append(conv, "here", claim, batch, ttl_ms=TTL_MS, now_ms=1)
    assert answer.refusal is None


async def seqs(store: RedisStore, conv: str) -> list[int]:
    return [each.seq for each in await store.window(conv)]


async def test_every_verb_reaches_its_node_and_the_checks_find_no_fault(
    redis: ClusteredRedis, settings
):
    client = connect(redis.url)
    store = RedisStore(client, bounds=BOUNDS)
    convs = [next(conversations_at(redis, number)) for number in range(3)]
    for conv in convs:
        claim = await store.claim(conv, "here", ttl_ms=TTL_MS)
        await store.note_leases([conv], ttl_ms=0)
        await write(store, conv, claim, 1)
        assert (await store.renew(conv, "here", claim, ttl_ms=TTL_MS)).refusal is None
        mail = await store.post(conv, b"{}")
        assert await store.mail(conv, after="") == [(mail, b"{}")]
        page = await store.read(conv, epoch=claim.epoch, seq=0, id="", limit=10, now_ms=1)
        assert [each.seq for each in page.entries] == [1]
        await store.note_owner("user:1", conv, 1)
    assert await store.heads(convs) == [1, 1, 1]
    assert await store.records(convs) == [None, None, None]
    assert set(convs) <= set(await store.due(most=1000))
    assert sorted(await store.owned("user:1")) == sorted(convs)

    kept = await store.reserve_key("user:1", "key", "name", convs[0])
    await store.answer_key("user:1", "key", "name", convs[0], "{}")
    await store.transfer("user:1", "user:2")
    assert await store.reserve_key("user:2", "key", "name", "another") == kept._replace(
        new=False, answer="{}"
    )
    assert (await store.reserve_key("user:1", "key", "name", convs[1])).new
    await store.forget_key("user:2", "key")
    assert (await store.reserve_key("user:2", "key", "name", convs[2])).new

    here, there = Presence(client, "here"), Presence(client, "there")
    there.tell("a-topic", partial(_said, b"that it is there"))
    there.start()
    async with asyncio.timeout(PATIENCE):
        while True:
            if await here.others("a-topic") == [b"that it is there"]:
                break
            await asyncio.sleep(0.01)
    await there.aclose()
    assert await here.others("a-topic") == []

    limits = SharedLimits(LimitBounds(prompts_user=2), client=client, presence=here)
    for _ in range(2):
        await limits.take_prompt("user:1", "192.0.2.1")
    with pytest.raises(RateLimited):
        await limits.take_prompt("user:1", "192.0.2.1")

    heard: asyncio.Queue[Any] = asyncio.Queue()
    inbox = Inbox(client, "here", on_message=heard.put_nowait)
    inbox.start()
    await Inbox(client, "there", on_message=heard.put_nowait).send("here", {"a": b"b"})
    async with asyncio.timeout(PATIENCE):
        assert await heard.get() == {b"a": b"b"}
    await inbox.aclose()
    await client.aclose()

    settings.REDIS_URL = redis.url
    assert await asyncio.to_thread(run_checks) == []


async def _said(what: bytes) -> bytes:
    return what


async def test_the_layer_is_heard_at_whichever_node_takes_it(redis: ClusteredRedis):
    nobody = f"@127.0.0.1:{free_port()},"
    await heard_by(RedisPubSubChannelLayer(hosts=[layer_host(redis.url)]))
    await heard_by(RedisPubSubChannelLayer(hosts=[layer_host(redis.url.replace("@", nobody, 1))]))


@pytest.mark.parametrize(
    ("right", "wrong", "id", "words"),
    [
        (":a-password", ":another", "E004", "user and password"),
        ("redis+cluster", "redis+clusters", "E003", "redis+cluster://"),
        ("@", "@:1,", "E003", "redis+cluster://"),
        ("+cluster", "", "E006", "redis+cluster://"),
    ],
)
async def test_a_url_that_does_not_fit_is_told_with_what_to_do(
    redis: ClusteredRedis, settings, right: str, wrong: str, id: str, words: str
):
    url = redis.url if right != "+cluster" else redis.url.partition(",")[0]
    settings.REDIS_URL = url.replace(right, wrong, 1)
    [error] = await asyncio.to_thread(run_checks)
    assert (error.id, error.level) == (f"webchat_project.{id}", 40)
    assert words in str(error.hint)


async def test_a_redis_that_is_none_of_a_cluster_is_not_taken_for_one(redis_url: str, settings):
    settings.REDIS_URL = redis_url.replace("redis://", "redis+cluster://")
    [error] = await asyncio.to_thread(run_checks)
    assert error.id == "webchat_project.E006"


async def test_what_waits_for_one_node_holds_up_none_that_waits_for_another(
    redis: ClusteredRedis, client: ClusterRedis
):
    store = RedisStore(client, bounds=BOUNDS)
    others, away = conversations_at(redis, 1), conversations_at(redis, 0)
    await store.claim(next(others), "here", ttl_ms=TTL_MS)
    redis.pause(0)
    try:
        waiting: list[asyncio.Task[Any]] = [
            asyncio.create_task(store.claim(next(away), "here", ttl_ms=TTL_MS)) for _ in range(200)
        ]
        waiting += [asyncio.create_task(store.record(next(away))) for _ in range(200)]
        for _ in range(200):
            conv = next(others)
            claim = await store.claim(conv, "here", ttl_ms=TTL_MS)
            await write(store, conv, claim, 1)
            assert await store.record(conv) is None
        assert not any(task.done() for task in waiting)
    finally:
        redis.resume(0)
    await asyncio.gather(*waiting)


async def test_a_node_that_forgot_its_scripts_is_told_them_though_another_is_away(
    redis: ClusteredRedis, client: ClusterRedis
):
    script = client.register_script("return {KEYS[1], ARGV[1]}")
    key = Keys(next(conversations_at(redis, 1))).meta
    await client.refresh()
    redis.pause(0)
    try:
        assert await script(keys=[key], args=["said"]) == [key.encode(), b"said"]
    finally:
        redis.resume(0)


async def test_where_no_node_answers_everybody_is_told_so_at_once(redis: ClusteredRedis):
    client = connect(redis.url)
    for number in range(3):
        redis.pause(number)
    try:
        async with asyncio.timeout(PATIENCE):
            ends = await asyncio.gather(
                *(client.get(str(number)) for number in range(100)), return_exceptions=True
            )
        assert {type(end) for end in ends} == {ClusterDownError}
    finally:
        for number in range(3):
            redis.resume(number)
    assert await client.get("a-key") is None
    await client.aclose()


async def test_what_waits_for_a_node_goes_to_the_one_that_takes_its_place(
    doomed: ClusteredRedis, patient: Patient
):
    client = patient(doomed)
    store = RedisStore(client, bounds=BOUNDS)
    away, others = conversations_at(doomed, 0), conversations_at(doomed, 1)
    await store.claim(next(others), "here", ttl_ms=TTL_MS)
    convs = [next(away) for _ in range(400)]
    doomed.pause(0)
    try:
        waiting = [asyncio.create_task(store.claim(conv, "here", ttl_ms=TTL_MS)) for conv in convs]
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(RedisError):
                    await client.refresh()
                # What is on its way there waits for its answer.
                if sum(task.done() for task in waiting) >= 400 - 2 * 64:
                    break
                await asyncio.sleep(0.05)
    finally:
        doomed.resume(0)
    await asyncio.gather(*waiting)


async def test_a_server_goes_in_order_though_the_node_of_what_all_share_is_away(
    redis: ClusteredRedis,
):
    shared = redis.ports.index(redis.port_of(LEASES))
    conv = next(conversations_at(redis, (shared + 1) % 3))
    env = {"REDIS_URL": redis.url, "WEBCHAT_LEASE_SECONDS": LEASE, **SHARED, **NO_LIMITS}
    async with (
        live_server("uvicorn", env=env) as server,
        visitor(server.url) as anna,
        anna.socket(conv) as socket,
    ):
        await socket.until("timeline.snapshot")
        await anna.chat("hang", conv)
        await socket.until("inference.started")
        redis.pause(shared)
        try:
            server.process.send_signal(signal.SIGTERM)
            seen = await socket.until("inference.finished")
            assert seen[-1]["data"]["status"] == "cancelled"
            assert await server.ended() == 0
        finally:
            redis.resume(shared)


async def test_while_a_slot_moves_key_by_key_it_is_read_and_what_is_written_waits(
    redis: ClusteredRedis, client: ClusterRedis
):
    store = RedisStore(client, bounds=BOUNDS)
    conv = next(conversations_at(redis, 0))
    claim = await store.claim(conv, "here", ttl_ms=TTL_MS)
    await write(store, conv, claim, 1)
    with Move(redis, conv, 0, 1) as move:
        move.announce()
        assert await read(store, conv, claim) == await seqs(store, conv) == [1]

        move.carry(Keys(conv).log)
        assert await seqs(store, conv) == [1]
        before = move.parted()
        reading = asyncio.create_task(read(store, conv, claim))
        async with asyncio.timeout(PATIENCE):
            while True:
                if move.parted() > before:
                    break
                await asyncio.sleep(0.01)
        writing = asyncio.create_task(written(store, conv, claim, 2))
        move.carry(*Keys(conv).all)
        assert await reading == await read(store, conv, claim) == [1]

        move.end()
        await writing
    assert redis.port_of(Keys(conv).meta) == redis.ports[1]
    await write(store, conv, claim, 3)
    assert await read(store, conv, claim) == await seqs(store, conv) == [1, 2, 3]


async def test_while_a_slot_moves_at_once_every_entry_is_written_once_and_in_order(
    redis: ClusteredRedis, client: ClusterRedis
):
    """As Valkey 9 moves one: at its end from one command to the next."""
    store = RedisStore(client, bounds=BOUNDS)
    conv = next(conversations_at(redis, 2))
    claim = await store.claim(conv, "here", ttl_ms=TTL_MS)
    seq = 0
    moving = asyncio.create_task(asyncio.to_thread(redis.move, Keys(conv).meta, 1))
    while not moving.done():
        seq += 1
        await written(store, conv, claim, seq)
    await moving
    await write(store, conv, claim, seq + 1)
    assert await seqs(store, conv) == list(range(1, seq + 2))


async def read(store: RedisStore, conv: str, claim: Claim) -> list[int]:
    page = await store.read(conv, epoch=claim.epoch, seq=0, id="", limit=100, now_ms=1)
    return [each.seq for each in page.entries]


async def written(store: RedisStore, conv: str, claim: Claim, seq: int) -> None:
    """As an owner writes, who asks again until the store takes it."""
    while True:
        try:
            return await write(store, conv, claim, seq)
        except RedisError:
            await asyncio.sleep(0.01)


class Move:
    """A slot on its way from one node to another, as an operator's tool has it go."""

    def __init__(self, redis: ClusteredRedis, conv: str, source: int, target: int) -> None:
        self._slot = key_slot(Keys(conv).meta.encode())
        self._ids = redis.id(source), redis.id(target)
        self._source = SyncRedis(port=redis.ports[source])
        self._target = SyncRedis(port=redis.ports[target])
        self._port = redis.ports[target]

    def __enter__(self) -> Move:
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.close()
        self._target.close()

    def announce(self) -> None:
        source, target = self._ids
        command(self._target, "CLUSTER SETSLOT", self._slot, "IMPORTING", source)
        command(self._source, "CLUSTER SETSLOT", self._slot, "MIGRATING", target)

    def carry(self, *keys: str) -> None:
        command(self._source, "MIGRATE", "127.0.0.1", self._port, "", 0, 60_000, "KEYS", *keys)

    def parted(self) -> int:
        """How often somebody was told that some of its keys are here and some there."""
        told: Any = self._source.info("errorstats")
        return int(told.get("errorstat_TRYAGAIN", {}).get("count", 0))

    def end(self) -> None:
        for node in (self._target, self._source):
            command(node, "CLUSTER SETSLOT", self._slot, "NODE", self._ids[1])


async def test_after_a_node_s_fail_over_what_was_replicated_goes_on_and_the_rest_went_on_all_along(
    doomed: ClusteredRedis,
):
    env = {"REDIS_URL": doomed.url, "WEBCHAT_LEASE_SECONDS": LEASE, **SHARED, **NO_LIMITS}
    at_the_lost, at_another = (next(conversations_at(doomed, number)) for number in (0, 1))
    async with (
        live_server("uvicorn", env=env) as server,
        visitor(server.url) as anna,
        anna.socket(at_the_lost) as lost,
        anna.socket(at_another) as other,
    ):
        await lost.until("timeline.snapshot")
        await other.until("timeline.snapshot")
        for conv in (at_the_lost, at_another):
            await anna.chat("hang", conv)
        running = await lost.until("inference.started")
        beside = await other.until("inference.started")
        await asyncio.to_thread(doomed.replicated, 0)
        await asyncio.to_thread(doomed.kill, 0)

        await accepted(anna, "/api/chat/cancel", {"conv_id": at_another})
        beside += await other.until("inference.finished")
        assert not broken_rules(beside)

        await accepted(anna, "/api/chat/cancel", {"conv_id": at_the_lost})
        running += await lost.until("inference.finished")
        assert running[-1]["data"]["status"] == "cancelled"
        assert not broken_rules(running)

        for conv, socket in ((at_the_lost, lost), (at_another, other)):
            await accepted(anna, "/chat", {"prompt": "long 3", "conv_id": conv})
            await socket.until("inference.finished")
            assert await asked(anna, conv) == ["hang", "long 3"]
