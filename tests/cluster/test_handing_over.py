"""Rolling deploys: a server that goes hands over, and newer code's data survives older code."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from chat.log import wall_ms
from cluster.connect import connect
from cluster.store import Batch, Bounds, Keys, RedisStore, Written
from tests.client import PATIENCE, Visitor, visitor
from tests.cluster.test_two_servers import at
from tests.live import LiveServer, live_server
from tests.rules import broken_rules

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


async def stored(client: Redis, key: str) -> dict[str, Any]:
    raw = await client.get(key)
    assert raw is not None
    found: dict[str, Any] = json.loads(raw)
    return found


async def given_up(client: Redis, conv_id: str) -> None:
    """Returns once no server owns the conversation: until then its owner writes what it knows."""
    async with asyncio.timeout(PATIENCE):
        while await client.hget(Keys(conv_id).meta, "owner"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(loop_scope="session")
async def here(first: LiveServer) -> AsyncIterator[Visitor]:
    async with visitor(first.url) as anna:
        yield anna


@pytest.fixture
def conv() -> str:
    return str(uuid4())


async def test_a_server_that_goes_leaves_its_queue_to_another_at_once(
    first: LiveServer, here: Visitor, shared_env: dict[str, str], service_url: str, conv: str
):
    env = {**shared_env, "WEBCHAT_STATE_DIR": str(first.state), "WEBCHAT_DRAIN_TIMEOUT": "2"}
    async with live_server("uvicorn", env=env) as going, at(going, here) as anna:
        async with here.socket(conv) as socket:
            await socket.until("timeline.snapshot")
            await anna.chat("hang", conv)
            seen = await socket.until("inference.started")
            ask = {"prompt": "what is this", "conv_id": conv}
            assert (await here.post("/chat", ask)).status_code == 202
            unanswered = await asked_of_nobody(service_url, anna)
            going.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                while True:
                    if (await anna.http.get("/readyz")).status_code == 503:
                        break
                    await asyncio.sleep(0.05)
            # Who is asked goes, who is not takes it, and the one that goes lets it wait.
            assert (await anna.post("/chat", ask)).status_code == 503
            assert (await here.post("/chat", ask)).status_code == 202
            ends = []
            for _ in range(3):
                seen += await socket.until("inference.finished")
                ends.append(seen[-1]["data"]["status"])
        assert ends == ["cancelled", "completed", "completed"]
        assert not broken_rules([frame for frame in seen if "seq" in frame])
        told = await unanswered
        assert (told.status_code, told.json()["code"]) == (503, "unavailable")
        assert int(told.headers["Retry-After"]) > 0
        assert await going.ended() == 0
        assert "Traceback" not in going.log


async def asked_of_nobody(redis_url: str, anna: Visitor) -> asyncio.Task[httpx.Response]:
    """A prompt on its way, in a conversation whose owner says nothing."""
    conv_id = str(uuid4())
    bounds = Bounds(frames=1000, bytes=10**6, age_ms=10**7, ttl_seconds=1000)
    async with connect(redis_url) as client:
        await RedisStore(client, bounds=bounds).claim(conv_id, "silent", ttl_ms=60_000)
        ask = {"prompt": "what is this", "conv_id": conv_id}
        asking = asyncio.create_task(anna.post("/chat", ask), name="asked of nobody")
        async with asyncio.timeout(PATIENCE):
            while True:
                if await client.xlen(Keys(conv_id).mail):
                    break
                await asyncio.sleep(0.05)
    return asking


async def test_what_newer_code_has_stored_outlives_a_write_of_ours(
    service_url: str, here: Visitor, conv: str
):
    await here.hear("what is this", conv)
    keys = Keys(conv)
    async with connect(service_url) as client:
        await given_up(client, conv)
        record = await stored(client, keys.record)
        record |= {"later": {"a": 1}}
        record["session"] |= {"v": 7, "mood": "good"}
        await client.set(keys.record, json.dumps(record))

        await here.hear("what is this", conv)
        await given_up(client, conv)
        record = await stored(client, keys.record)
        assert (record["later"], record["session"]["mood"]) == ({"a": 1}, "good")
        assert (record["session"]["v"], record["session"]["turns"]) == (7, 2)


async def test_a_frame_of_newer_code_goes_to_clients_and_stops_no_fold(
    service_url: str, here: Visitor, conv: str
):
    await here.hear("what is this", conv)
    bounds = Bounds(frames=1000, bytes=10**6, age_ms=10**7, ttl_seconds=1000)
    async with connect(service_url) as client, here.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await given_up(client, conv)
        store = RedisStore(client, bounds=bounds)
        claim = await store.claim(conv, "newer", ttl_ms=5000)
        last = await store.read(conv, epoch=claim.epoch, seq=0, id="", limit=1, now_ms=0)
        seq = last.head + 1
        id = f"{seq}-77"
        event = {"seq": seq, "stream_id": id, "type": "later.kind", "id": "x", "data": {"a": 1}}
        text = json.dumps({"sem": True, "event": event}, separators=(",", ":"))
        at_ms = wall_ms()
        entry = Written(id, at_ms, len(text), "LaterKind", text)
        batch = Batch(last.head, last.head_id, "", 0, [entry])
        answer = await store.append(conv, "newer", claim, batch, ttl_ms=5000, now_ms=at_ms)
        assert answer.refusal is None
        assert await store.release(conv, "newer", claim, mail_done=answer.mail)
        await here.chat("what is this", conv)
        seen = await socket.until("inference.finished")
    assert "later.kind" in [frame["type"] for frame in seen]
    assert seen[-1]["data"]["status"] == "completed"
    shown = await here.get("/api/timeline", conv_id=conv)
    assert len([e for e in shown["entities"] if e["kind"] == "inference"]) == 2
