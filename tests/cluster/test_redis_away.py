"""A real server whose Redis is away at its start, and again while an answer is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
import pytest_asyncio

from tests.client import PATIENCE, Visitor, stranger, visitor
from tests.live import NO_LIMITS, SHARED, LiveServer, live_server
from tests.ports import free_port
from tests.redis_server import RestartedRedis
from tests.rules import broken_rules

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

LEASE = 1.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestartedRedis]:
    server = RestartedRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def begun(redis: RestartedRedis) -> AsyncIterator[tuple[LiveServer, dict[str, object]]]:
    """A server that was started before its Redis, and what it said of itself until then."""
    env = {"REDIS_URL": redis.url, "WEBCHAT_LEASE_SECONDS": str(LEASE), **SHARED, **NO_LIMITS}
    port = free_port()
    said: dict[str, object] = {}

    async def start_redis() -> None:
        async with stranger(f"http://127.0.0.1:{port}") as http:
            while not said:
                with suppress(httpx.TransportError):
                    ready = await http.get("/readyz")
                    page = await http.get("/")
                    said.update(ready=ready.json(), status=ready.status_code, page=page)
                await asyncio.sleep(0.1)
        redis.start()

    starting = asyncio.create_task(start_redis())
    async with live_server("uvicorn", env=env, port=port) as server:
        await starting
        yield server, said


async def until_ready(anna: Visitor, status: int) -> httpx.Response:
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await anna.http.get("/readyz")
            if answer.status_code == status:
                return answer
            await asyncio.sleep(0.05)


async def test_a_server_starts_without_redis_and_takes_work_once_it_is_there(begun):
    server, said = begun
    assert (said["status"], said["ready"]["failing"]) == (503, ["redis"])
    assert said["page"].status_code == 503
    assert int(said["page"].headers["Retry-After"]) > 0
    assert "try again" in said["page"].text
    assert "webchat_project.W001" in server.log
    async with visitor(server.url) as anna:
        assert (await anna.hear("what is this", "begun"))[-1]["data"]["status"] == "completed"


async def test_while_redis_is_away_sockets_stay_and_all_goes_on_when_it_is_back(
    begun, redis: RestartedRedis
):
    server, _ = begun
    async with visitor(server.url) as anna, anna.socket("conv") as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("hang", "conv")
        seen = await socket.until("inference.started")
        before = len(server.log)

        redis.kill()
        refused = await anna.post("/chat", {"prompt": "what is this", "conv_id": "conv"})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        page = await anna.http.get("/c/conv/")
        assert (page.status_code, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        async with anna.socket("conv") as late:
            assert (await late.frame())["data"]["code"] == "unavailable"
            assert await late.closed() == 1013
        assert (await until_ready(anna, 503)).json()["failing"] == ["redis"]
        await asyncio.sleep(LEASE + 0.5)
        await socket.send({"type": "ws.ping"})
        assert (await socket.until("ws.pong"))[-1]["type"] == "ws.pong"

        redis.start()
        await until_ready(anna, 200)
        seen += await socket.until("inference.finished")
        assert seen[-1]["data"]["status"] == "lost"
        await anna.chat("what is this", "conv")
        seen += await socket.until("inference.finished")
        assert seen[-1]["data"]["status"] == "completed"
        assert not broken_rules([frame for frame in seen if "seq" in frame])
    told = server.log[before:]
    assert told.count("Redis cannot be reached") == 1
    assert told.count("Redis answers again") == 1
    assert "Redis was not reached before the lease ran out" in told
    assert "Traceback" not in told, told
