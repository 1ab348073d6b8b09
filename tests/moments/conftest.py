"""Where the log of the moments lies: in memory, and in `make test-all` once more in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis import Redis

from tests.moments import bench
from tests.moments.on_redis import redis_logs
from tests.redis_server import redis_server


@pytest.fixture(scope="session")
def moments_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
async def log_place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Where a bench's log of CONV is while the test runs."""
    if request.param == "memory":
        yield
        return
    url: str = request.getfixturevalue("moments_url")
    with Redis.from_url(url) as redis:
        redis.flushall()
    async with redis_logs(url, bench.CONV) as logs:
        monkeypatch.setattr(bench, "LOGS", logs)
        yield
