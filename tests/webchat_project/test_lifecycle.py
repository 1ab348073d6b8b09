"""Proves webchat_project/lifecycle.py: an orderly end. On real servers: tests/border."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chat.hub import Hub
from sessions_app.inference.errors import Draining
from sessions_app.values import PromptRequest
from webchat_project.lifecycle import Lifecycle
from webchat_project.testing import running_hub


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    async with running_hub() as running:
        yield running


class Server:
    """An ASGI server's side of the lifespan."""

    def __init__(self, application: Any) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self.task = asyncio.create_task(
            application(scope, self._messages.get, self._answers.put), name="lifespan"
        )

    async def say(self, kind: str) -> dict[str, Any]:
        self._messages.put_nowait({"type": f"lifespan.{kind}"})
        async with asyncio.timeout(5):
            return await self._answers.get()


async def nobody(scope: dict[str, Any], receive: Any, send: Any) -> None:
    raise AssertionError("the lifespan reached the application")


async def test_the_server_is_answered_at_start_and_at_the_end(hub: Hub):
    server = Server(Lifecycle(nobody, close=hub.aclose))

    assert await server.say("startup") == {"type": "lifespan.startup.complete"}
    draining = [hub.draining]
    assert await server.say("shutdown") == {"type": "lifespan.shutdown.complete"}
    draining.append(hub.draining)

    assert draining == [False, True]
    await server.task


@pytest.mark.parametrize("prompt", ["hang", "slow 30"])
async def test_the_end_of_the_server_ends_every_inference_and_says_why(hub: Hub, prompt: str):
    server = Server(Lifecycle(nobody, close=hub.aclose))
    await server.say("startup")
    conversations = ["a", "b", "c"]
    for conv_id in conversations:
        await hub.sessions.open(conv_id, owner="visitor:x", profile=None)
        await hub.sessions.submit(PromptRequest(owner="visitor:x", prompt=prompt, conv_id=conv_id))
    await server.say("shutdown")

    for conv_id in conversations:
        snapshot = await hub.streams.snapshot(conv_id)
        [inference] = [each for each in snapshot.entities if each.kind == "inference"]
        assert not snapshot.running
        assert inference.props["status"] == "cancelled"
        assert inference.props["error"] == "server restarting"
    with pytest.raises(Draining, match="try again"):
        await hub.sessions.submit(PromptRequest(owner="visitor:x", prompt="hello", conv_id="a"))
    await server.task


@pytest.mark.parametrize("first", ["lifespan", "http", "websocket"])
async def test_whatever_comes_first_starts_it_once(first: str):
    told: list[str] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        told.append(scope["type"])

    async def close() -> None: ...

    lifecycle = Lifecycle(application, start=lambda: told.append("start"), close=close)
    if first == "lifespan":
        server = Server(lifecycle)
        await server.say("startup")
        await server.say("shutdown")
        await server.task
    else:
        await lifecycle({"type": first}, "receive", "send")
    await lifecycle({"type": "http"}, "receive", "send")

    assert told[0] == "start"
    assert told.count("start") == 1


async def test_what_is_no_lifespan_goes_to_the_application_as_it_is():
    passed: list[Any] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        passed.append((scope, receive, send))

    async def close() -> None:
        raise AssertionError("nothing has ended")

    lifecycle = Lifecycle(application, close=close)
    for kind in ("http", "websocket"):
        await lifecycle({"type": kind}, "receive", "send")

    assert passed == [({"type": kind}, "receive", "send") for kind in ("http", "websocket")]
