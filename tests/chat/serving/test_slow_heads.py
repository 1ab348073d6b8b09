"""A client that does not say what it wants, on the HTTP sides of both servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.http import Request
from uvicorn.server import ServerState

from chat.body import BODY_SECONDS
from chat.serving import uvicorn_http
from chat.serving.daphne_http import DaphneHttp
from chat.serving.fair_share import HEAD_SECONDS
from chat.serving.uvicorn_http import UvicornHttp

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON = 0.1
GENTLE = 5.0


async def slowly(scope: Any, receive: Any, send: Any) -> None:
    """An application that takes longer than a head may."""
    await asyncio.sleep(3 * SOON)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def client() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to uvicorn's HTTP as `manage.py serve` has it."""
    config = uvicorn.Config(slowly, lifespan="off", log_config=None, ws="none")
    config.load()
    loop, state = asyncio.get_running_loop(), ServerState()
    listening = await loop.create_server(
        lambda: UvicornHttp(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with listening:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
    await asyncio.gather(*state.tasks)


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "HEAD_SECONDS", SOON)


async def hung_up(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(GENTLE):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


@pytest.mark.usefixtures("_in_a_hurry")
@pytest.mark.parametrize("said", [b"", HEAD[:1], HEAD[:-2]])
async def test_uvicorn_hangs_up_on_a_client_that_stalls_before_its_head_is_whole(said: bytes):
    async with client() as (reader, writer):
        writer.write(said)
        assert await hung_up(reader)


@pytest.mark.usefixtures("_in_a_hurry")
async def test_uvicorn_hangs_up_on_one_that_drips():
    async with client() as (reader, writer):
        end = asyncio.create_task(hung_up(reader))
        writer.write(HEAD[:-2])
        while not end.done():
            writer.write(b"a: b\r\n")
            await asyncio.wait({end}, timeout=SOON / 5)
        assert end.result()


@pytest.mark.usefixtures("_in_a_hurry")
async def test_uvicorn_lets_an_answer_take_its_time_and_then_waits_for_the_next_head_alike():
    async with client() as (reader, writer), asyncio.timeout(GENTLE):
        for _ in range(2):
            writer.write(HEAD)
            assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD[:5])
        assert await hung_up(reader)


class Channel:
    """A connection to Daphne's HTTP, in a time of its own."""

    def __init__(self) -> None:
        self.clock, self.transport = Clock(), StringTransport()
        self.http = DaphneHttp()
        self.http.callLater = self.clock.callLater  # type: ignore[method-assign, assignment]
        self.http.timeOut = 60
        self.http.requestFactory = Asked
        self.http.makeConnection(self.transport)

    def is_open_after(self, seconds: float) -> bool:
        self.clock.advance(seconds)
        return not self.transport.disconnecting and not self.transport.disconnected


class Asked(Request):
    """A request that is answered when a test says so."""

    def process(self) -> None:
        pass


@pytest.mark.parametrize("said", [b"", HEAD[:1], HEAD[:-2]])
def test_daphne_hangs_up_on_a_client_that_stalls_before_its_head_is_whole(said: bytes):
    channel = Channel()
    channel.http.dataReceived(said)
    assert channel.is_open_after(HEAD_SECONDS - 1)
    assert not channel.is_open_after(1)


def test_daphne_hangs_up_on_one_that_drips():
    channel = Channel()
    channel.http.dataReceived(HEAD[:-2])
    for _ in range(9):
        assert channel.is_open_after(HEAD_SECONDS / 10)
        channel.http.dataReceived(b"a: b\r\n")
    assert not channel.is_open_after(HEAD_SECONDS / 10)


BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


def test_daphne_refuses_a_body_that_drips():
    channel = Channel()
    channel.http.dataReceived(BODY)
    for _ in range(9):
        assert channel.is_open_after(BODY_SECONDS / 10)
        channel.http.dataReceived(b"x")
    assert not channel.is_open_after(BODY_SECONDS / 10)
    head, _, said = channel.transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(said)["code"] == "bad_request"


def test_daphne_waits_for_the_next_head_after_a_body_as_it_did_before():
    channel = Channel()
    channel.http.dataReceived(BODY + b"x" * 1000)
    assert channel.is_open_after(3 * BODY_SECONDS)
    [asked] = channel.http.requests
    asked.finish()
    channel.http.dataReceived(HEAD[:5])
    assert channel.is_open_after(HEAD_SECONDS - 1)
    assert not channel.is_open_after(1)


def test_daphne_lets_an_answer_take_its_time_and_then_waits_for_the_next_head_alike():
    channel = Channel()
    channel.http.dataReceived(HEAD)
    assert channel.is_open_after(3 * HEAD_SECONDS)
    [asked] = channel.http.requests
    asked.finish()
    assert channel.is_open_after(2 * HEAD_SECONDS)
    channel.http.dataReceived(HEAD[:5])
    assert channel.is_open_after(HEAD_SECONDS - 1)
    assert not channel.is_open_after(1)
