"""A Redis that a Sentinel watches: its primary is found, and after a fail-over the new one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.core.checks import run_checks
from redis.asyncio import Redis

from cluster.connect import connect, layer_host
from cluster.sentinel import PrimaryUnknown, heed_sentinels
from tests.client import PATIENCE, Socket, Visitor, visitor
from tests.cluster.test_redis_tls import behind_tls
from tests.live import NO_LIMITS, SHARED, live_server
from tests.ports import free_port
from tests.redis_server import WatchedRedis
from tests.rules import broken_rules

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASE = "60"
"""Longer than any fail-over here: what runs, and was replicated, goes on."""
URL = (
    "redis+sentinel://webchat:a-password@127.0.0.1:{port}/the-service/0"
    "?sentinel_password=a-sentinel-password"
)


def url_of(redis: WatchedRedis) -> str:
    return URL.format(port=redis.port)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRedis]:
    server = WatchedRedis(tmp_path_factory.mktemp("sentinel"))
    yield server
    server.stop()


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[WatchedRedis]:
    """One of a test's own, that it may break."""
    server = WatchedRedis(tmp_path)
    yield server
    server.stop()


async def test_the_store_and_the_layer_find_the_primary_and_the_checks_find_no_fault(
    redis: WatchedRedis, settings
):
    client = connect(url_of(redis))
    assert (await client.info("replication"))["role"] == "master"
    await client.aclose()

    await heard_by(RedisPubSubChannelLayer(hosts=[layer_host(url_of(redis))]))

    settings.REDIS_URL = url_of(redis)
    assert await asyncio.to_thread(run_checks) == []


@pytest.mark.parametrize(
    ("right", "wrong", "id", "words"),
    [
        ("/the-service", "/the-servise", "E008", "They watch: "),
        ("a-sentinel-password", "another", "E004", "sentinel_password"),
        (":a-password", ":another", "E004", "user and password"),
        (URL, "redis://:a-sentinel-password@127.0.0.1:{port}", "E007", "redis+sentinel://"),
        (":{port}", ":{primary_port}", "E008", "of a Redis itself, redis://"),
        ("?sentinel_password", "?colour=red&sentinel_password", "E003", "redis+sentinel://"),
    ],
)
async def test_a_url_that_does_not_fit_is_told_with_what_to_do(
    redis: WatchedRedis, settings, right: str, wrong: str, id: str, words: str
):
    ports = {"port": redis.port, "primary_port": redis.primary_port}
    settings.REDIS_URL = URL.replace(right, wrong).format(**ports)
    [error] = await asyncio.to_thread(run_checks)
    assert (error.id, error.level) == (f"webchat_project.{id}", 40)
    assert words in str(error.hint)


async def test_where_no_sentinel_answers_everybody_is_told_so(settings):
    settings.REDIS_URL = f"redis+sentinel://127.0.0.1:{free_port()},[::1]:{free_port()}/a-service"
    [warning] = await asyncio.to_thread(run_checks)
    assert warning.id == "webchat_project.W001"
    client = connect(settings.REDIS_URL)
    with pytest.raises(PrimaryUnknown, match="a-service"):
        await client.ping()
    await client.aclose()


async def test_tls_is_spoken_with_the_sentinels_and_with_the_redis_that_they_name(
    redis: WatchedRedis, tmp_path: Path
):
    ours = trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    async with (
        behind_tls(f"redis://127.0.0.1:{redis.port}", ours) as port,
        behind_tls(f"redis://127.0.0.1:{redis.primary_port}", ours) as primary_port,
    ):
        with redis.sentinel() as sentinel:
            sentinel.sentinel_monitor("by-tls", "127.0.0.1", primary_port, 1)
        url = URL.replace("redis", "rediss", 1).replace("the-service", "by-tls")
        url = f"{url.format(port=port)}&ssl_ca_certs={tmp_path / 'ours.pem'}"
        client = connect(url)
        assert (await client.info("replication"))["role"] == "master"
        await client.aclose()
        await heard_by(RedisPubSubChannelLayer(hosts=[layer_host(url)]))


async def test_a_client_leaves_a_primary_that_still_answers_when_the_sentinels_name_another(
    redis: WatchedRedis,
):
    client = connect(url_of(redis).replace("the-service", "handed-over"))
    with redis.sentinel() as sentinel:
        sentinel.sentinel_monitor("handed-over", "127.0.0.1", redis.primary_port, 1)
        assert (await client.info("server"))["tcp_port"] == redis.primary_port
        sentinel.sentinel_remove("handed-over")
        sentinel.sentinel_monitor("handed-over", "127.0.0.1", redis.replica_port, 1)
    pool: Any = client.connection_pool
    busy = await pool.get_connection()
    await heed_sentinels(client)
    assert (await client.info("server"))["tcp_port"] == redis.replica_port
    await pool.release(busy)
    assert not busy.is_connected
    assert (await client.info("server"))["tcp_port"] == redis.replica_port
    await client.aclose()


async def test_the_layer_listens_to_whom_the_sentinels_name_though_the_other_still_speaks(
    redis: WatchedRedis, monkeypatch
):
    monkeypatch.setattr("cluster.sentinel.LOOK_SECONDS", 0.0)
    layer = RedisPubSubChannelLayer(
        hosts=[layer_host(url_of(redis).replace("the-service", "listened-to"))]
    )
    with redis.sentinel() as sentinel:
        sentinel.sentinel_monitor("listened-to", "127.0.0.1", redis.primary_port, 1)
        channel = await layer.new_channel()
        sentinel.sentinel_remove("listened-to")
        sentinel.sentinel_monitor("listened-to", "127.0.0.1", redis.replica_port, 1)
    async with asyncio.timeout(PATIENCE), Redis(port=redis.replica_port) as replica:
        while True:
            if channel.encode() in await replica.pubsub_channels():
                break
            await asyncio.sleep(0.02)
    await closed(layer)


async def test_after_a_fail_over_what_was_replicated_goes_on_and_what_was_not_is_told_honestly(
    doomed: WatchedRedis,
):
    env = {"REDIS_URL": url_of(doomed), "WEBCHAT_LEASE_SECONDS": LEASE, **SHARED, **NO_LIMITS}
    async with (
        live_server("uvicorn", env=env) as server,
        visitor(server.url) as anna,
        anna.socket("kept") as kept,
        anna.socket("behind") as behind,
    ):
        await kept.until("timeline.snapshot")
        await behind.until("timeline.snapshot")
        await anna.chat("hang", "kept")
        running = await kept.until("inference.started")
        await anna.chat("long 1", "behind")
        await behind.until("inference.finished")

        await asyncio.to_thread(doomed.keep_replica_behind)
        await anna.chat("long 2", "behind")
        await behind.until("inference.finished")
        await asyncio.to_thread(doomed.fail_over)

        await accepted(anna, "/api/chat/cancel", {"conv_id": "kept"})
        running += await kept.until("inference.finished")
        assert running[-1]["data"]["status"] == "cancelled"
        assert not broken_rules(running)

        await accepted(anna, "/chat", {"prompt": "long 3", "conv_id": "behind"})
        await told_again(behind)
        assert await asked(anna, "behind") == ["long 1", "long 3"]


async def heard_by(layer: Any) -> None:
    """What is sent to a group of the layer is heard in it."""
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    await layer.group_send("group", {"type": "heard"})
    async with asyncio.timeout(PATIENCE):
        assert await layer.receive(channel) == {"type": "heard"}
    await closed(layer)


async def closed(layer: Any) -> None:
    for shard in layer._shards:  # channels_redis closes its connections, but for these
        sentinels = getattr(shard._redis.connection_pool, "sentinel_manager", None)
        if sentinels is not None:
            await sentinels.aclose()
    await layer.flush()


async def accepted(anna: Visitor, path: str, body: object) -> None:
    """Asks until the server has found the new primary."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await anna.post(path, body)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.1)
    assert answer.status_code in (200, 202), answer.text


async def told_again(socket: Socket) -> None:
    """Until a snapshot has taken back what it was told, and the next answer has come to its end."""
    frames = await socket.until("timeline.snapshot")
    if not any(frame["type"] == "inference.finished" for frame in frames):
        await socket.until("inference.finished")


async def asked(anna: Visitor, conv: str) -> list[str]:
    entities = (await anna.get("/api/timeline", conv_id=conv))["entities"]
    return [e["props"]["content"] for e in entities if e["props"].get("role") == "user"]
