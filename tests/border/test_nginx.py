"""Behind nginx, with the very sample of docs/deploying.md and the settings that page names."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from tests.client import Socket, Visitor, stranger, visitor
from tests.live import live_server
from tests.nginx import Proxy, nginx

BEHIND = {
    "ALLOWED_HOSTS": "127.0.0.1",
    "TRUST_X_FORWARDED_PROTO": "1",
    "WEBCHAT_TRUSTED_PROXIES": "1",
    "SECURE_COOKIES": "1",
    "SECURE_SSL_REDIRECT": "1",
}
SOCKETS = 2
FAST_HEART = {"DJANGO_SETTINGS_MODULE": "tests.standins.heartbeats"}
PATIENCE = "1s"
"""nginx's, for a socket on which nothing comes."""
BEYOND = 2.5


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """nginx before a server whose heart beats more often than nginx has patience."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> Proxy:
            env = {**BEHIND, **FAST_HEART, "WEBCHAT_SOCKETS_PER_ADDRESS": str(SOCKETS)}
            server = await stack.enter_async_context(live_server("uvicorn", env=env))
            return await stack.enter_async_context(nginx(server.port, read_timeout=PATIENCE))

        try:
            yield runner.run(start())
        finally:
            runner.run(stack.aclose())


@asynccontextmanager
async def browser(front: Proxy, environment: pytest.MonkeyPatch) -> AsyncIterator[Visitor]:
    """A visitor that trusts nginx's certificate, and says where it comes from as browsers do."""
    environment.setenv("SSL_CERT_FILE", str(front.certificate))
    async with visitor(front.url) as somebody:
        somebody.http.headers["Origin"] = front.url
        yield somebody


@pytest_asyncio.fixture
async def dora(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Visitor]:
    async with browser(proxy, monkeypatch) as somebody:
        yield somebody


async def test_a_long_answer_comes_whole_and_in_order(dora: Visitor, conv: str):
    frames = await dora.hear("long 5000", conv)

    assert frames[-1]["data"]["status"] == "completed"
    assert dora.http.cookies.jar is not None
    assert all(cookie.secure for cookie in dora.http.cookies.jar)


async def test_a_socket_on_which_nobody_speaks_outlives_nginxs_patience(dora: Visitor, conv: str):
    async with dora.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        async with asyncio.timeout(BEYOND * 4):
            for _ in range(5):
                await socket.until("ws.ping")
        await dora.chat("hello", conv)
        assert (await socket.until("inference.finished"))[-1]["data"]["status"] == "completed"


@asynccontextmanager
async def from_address(address: str, somebody: Visitor, **headers: str) -> AsyncIterator[Socket]:
    """A socket of a new conversation, opened from one of loopback's addresses."""
    async with connect(
        somebody.socket_url(conv_id=str(uuid4())),
        additional_headers={**somebody.headers(), **headers},
        origin=Origin(somebody.url),
        local_addr=(address, 0),
        compression=None,
        proxy=None,
    ) as websocket:
        yield Socket(websocket)


async def test_limits_count_by_the_clients_address_which_it_cannot_make_up(dora: Visitor):
    async with AsyncExitStack() as stack:
        for _ in range(SOCKETS):
            socket = await stack.enter_async_context(from_address("127.0.0.2", dora))
            await socket.until("timeline.snapshot")
        forged = {"X-Forwarded-For": "192.0.2.1"}
        async with from_address("127.0.0.2", dora, **forged) as one_more:
            assert (await one_more.frame())["data"]["code"] == "too_many_sockets"
            assert await one_more.closed() == 4529
        async with from_address("127.0.0.3", dora) as elsewhere:
            await elsewhere.until("timeline.snapshot")


async def test_another_sites_page_opens_no_socket(dora: Visitor, conv: str):
    assert await dora.refused(conv, origin="https://evil.example") == 403
    assert await dora.refused(conv, origin=dora.url.replace("https", "http")) == 403


async def test_large_uploads_are_refused_by_nginx_and_large_prompts_by_us(dora: Visitor, conv: str):
    refused = await dora.post("/chat", {"prompt": "x" * 1024 * 1024, "conv_id": conv})
    assert (refused.status_code, "nginx" in refused.text) == (413, True)
    refused = await dora.post("/chat", {"prompt": "x" * 100 * 1024, "conv_id": conv})
    assert (refused.status_code, refused.json()["code"]) == (413, "prompt_too_long")


async def test_plain_http_is_sent_on(proxy: Proxy):
    async with stranger(proxy.plain_url) as http:
        answer = await http.get("/c/somewhere/")
    assert answer.status_code == 301
    assert answer.headers["Location"] == "https://127.0.0.1/c/somewhere/"


async def test_a_restart_is_told_through_nginx_and_a_heart_that_is_slower_than_it_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
):
    async with (
        live_server("daphne", env=BEHIND) as server,
        nginx(server.port, read_timeout="2s") as front,
        browser(front, monkeypatch) as eric,
    ):
        async with eric.socket("idle") as idle:
            await idle.until("timeline.snapshot")
            with pytest.raises(ConnectionClosed):
                await idle.until("ws.ping")
        async with eric.socket("running") as watching:
            await watching.until("timeline.snapshot")
            await eric.chat("slow 3", "running")
            await watching.until("llm.delta")
            server.process.send_signal(signal.SIGTERM)
            while (await eric.http.get("/readyz")).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            refused = await eric.post("/chat", {"prompt": "hello", "conv_id": "running"})
            end = (await watching.until("inference.finished"))[-1]
            assert await watching.closed() == 1012
        assert end["data"]["status"] == "completed"
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert int(refused.headers["Retry-After"]) > 0
        await server.ended()
        assert (await eric.http.get("/readyz")).status_code == 502
