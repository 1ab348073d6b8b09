"""A Redis for tests that bring their own processes, and one that two servers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from uuid import uuid4

import pytest
import pytest_asyncio

from sessions_app.testing import Gate, ScriptedEngine
from tests.cluster.processes import Process
from tests.live import NO_LIMITS, NO_MESSAGES, SHARED, LiveServer, live_server
from tests.redis_server import redis_cluster, redis_server

LEASE = 2.0
"""Seconds: short, for tests wait for it."""


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """No server looks into it: one would take over what a test leaves without an owner."""
    with redis_server() as url:
        yield url


@pytest.fixture
def processes(redis_url: str) -> Iterator[tuple[Process, Process]]:
    """Two of one service; a prompt runs until it is cancelled."""
    one, other = (
        Process(redis_url, str(uuid4()), ScriptedEngine("So", Gate("never"))) for _ in range(2)
    )
    yield one, other
    one.leave()
    other.leave()


HEARD = "heard"
REDIS_OF: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    HEARD: redis_server,
    "lossy": redis_server,
    "clustered": redis_cluster,
}


@pytest.fixture(
    scope="session",
    params=[
        HEARD,
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lossy", "clustered")),
    ],
)
def shared_env(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of every server of one service.

    Once more where no message of the layer arrives, and where the Redis is a cluster.
    """
    with REDIS_OF[request.param]() as url:
        yield {
            **(NO_MESSAGES if request.param == "lossy" else {}),
            "REDIS_URL": url,
            "WEBCHAT_LEASE_SECONDS": str(LEASE),
            **SHARED,
            **NO_LIMITS,
        }


@pytest.fixture(scope="session")
def service_url(shared_env: dict[str, str]) -> str:
    """The Redis that the servers share."""
    return shared_env["REDIS_URL"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def first(shared_env: dict[str, str]) -> AsyncIterator[LiveServer]:
    async with live_server("uvicorn", env=shared_env) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def second(first: LiveServer, shared_env: dict[str, str]) -> AsyncIterator[LiveServer]:
    """Another server of the same service: the same accounts, the same Redis."""
    env = {**shared_env, "WEBCHAT_STATE_DIR": str(first.state)}
    async with live_server("daphne", env=env) as server:
        yield server
