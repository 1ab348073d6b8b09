"""Fixtures every folder may use, and virtual time for what asks for it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import async_solipsism
import hypothesis
import pytest
import pytest_asyncio

from tests.client import Visitor, visitor
from tests.live import (
    CLUSTERED,
    LOSSY,
    SERVERS,
    KeptServers,
    LiveServer,
    kept_servers,
    prepared_state,
)
from tests.moments.on_redis import BesideRedis

pytest_plugins = ["tests.watchdog", "tests.workers"]

# How long an example takes says more of the machine than of us; pytest-timeout bounds a test.
hypothesis.settings.register_profile("webchat", deadline=None)
hypothesis.settings.load_profile("webchat")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, type[asyncio.AbstractEventLoop]]:
    """A test marked `virtual` runs in time that passes only while everybody waits."""
    if item.get_closest_marker("virtual"):
        with_redis = "log_place" in item.fixturenames  # type: ignore[attr-defined]
        return {"virtual": BesideRedis if with_redis else async_solipsism.EventLoop}
    return {"real": asyncio.SelectorEventLoop}


NOTHING_OF_THE_STORE = (
    "test_handshake",
    "test_headers",
    "test_hostile",
    "test_models",
    "test_pings",
    "test_static",
)
"""Files whose tests ask for nothing that lies in Redis: there they run in `make test-all` alone."""
NOTHING_OF_THE_LAYER = (*NOTHING_OF_THE_STORE, "test_http", "test_log_lines", "test_pages")
"""Files whose tests wait for nothing that sockets are told: it is one to them if all is lost."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        if "uvicorn-redis" in item.name and item.path.stem in NOTHING_OF_THE_STORE:
            item.add_marker(pytest.mark.slow)
        no_matter = (LOSSY in item.name and item.path.stem in NOTHING_OF_THE_LAYER) or (
            CLUSTERED in item.name and item.path.stem in NOTHING_OF_THE_STORE
        )
        (left_out if no_matter else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(scope="session", autouse=True)
def _remove_prepared_state() -> Iterator[None]:
    yield
    if prepared_state.cache_info().currsize:
        shutil.rmtree(prepared_state())


@pytest.fixture(scope="session")
def kept() -> Iterator[KeptServers]:
    with kept_servers() as servers:
        yield servers


@pytest.fixture(
    params=[*SERVERS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (LOSSY, CLUSTERED))]
)
def server(request: pytest.FixtureRequest, kept: KeptServers) -> LiveServer:
    """The server of each kind, one for the whole run; each test brings its own visitors."""
    running = kept.of(request.param)
    running.read_on()
    return running


@pytest.fixture
def plain_static(settings, tmp_path: Path) -> None:
    """Pages can be rendered in this process, where no static files were collected."""
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest_asyncio.fixture
async def anna(server: LiveServer) -> AsyncIterator[Visitor]:
    async with visitor(server.url) as somebody:
        yield somebody


@pytest_asyncio.fixture
async def bert(server: LiveServer) -> AsyncIterator[Visitor]:
    async with visitor(server.url) as somebody:
        yield somebody
