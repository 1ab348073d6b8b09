"""ChatConsumer in this process: its place in the control group, and what it leaves behind.

What it sends and takes is proved on real servers, in tests/border.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
import pytest_asyncio
from channels.layers import InMemoryChannelLayer, get_channel_layer
from channels.testing import WebsocketCommunicator

from chat.consumers import ChatConsumer
from chat.control import close_sockets, control_group
from chat.hub import Hub
from chat.testing import ChatClient, Socket
from sessions_app.access import Identity
from sessions_app.values import PromptRequest
from webchat_project.testing import running_hub

GENTLE = 30.0
"""Seconds for what takes milliseconds."""


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    async with running_hub() as running:
        yield running


@pytest.fixture
def conv() -> str:
    return str(uuid4())


def layer() -> InMemoryChannelLayer:
    found = get_channel_layer()
    assert isinstance(found, InMemoryChannelLayer)
    return found


def members(conv: str) -> set[str]:
    return set(layer().groups.get(control_group(conv), ()))


def scope(conv: str, visitor: str | None, **query: str) -> dict[str, Any]:
    """What the gates in front of the consumer make of a handshake."""
    return {
        "type": "websocket",
        "path": "/ws",
        "query_string": urlencode({"conv_id": conv, **query}).encode(),
        "headers": [],
        "cookies": {},
        "identity": Identity(None if visitor is None else f"visitor:{visitor}"),
        "session_key": None,
    }


def socket(conv: str, visitor: str | None = "anna", **query: str) -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(ChatConsumer.as_asgi(), "/ws")
    handshake: Any = scope(conv, visitor, **query)
    communicator.scope.update(handshake)
    return communicator


@asynccontextmanager
async def opened(conv: str, visitor: str = "anna") -> AsyncIterator[Socket]:
    """A socket that has been greeted."""
    async with ChatClient(conv, visitor=visitor, patience=GENTLE).socket() as tab:
        greeting = [frame["type"] for frame in await tab.until("timeline.snapshot")]
        assert greeting == ["ws.hello", "timeline.snapshot"]
        yield tab


async def event(communicator: WebsocketCommunicator) -> dict[str, Any]:
    message = await communicator.receive_output(timeout=GENTLE)
    assert message["type"] == "websocket.send", message
    found: dict[str, Any] = json.loads(message["text"])["event"]
    return found


def tasks() -> set[str]:
    """The names of everything that runs beside this test."""
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def asked(prompt: str, conv_id: str) -> PromptRequest:
    return PromptRequest(owner="visitor:anna", prompt=prompt, conv_id=conv_id)


async def test_a_socket_is_in_the_control_group_from_its_greeting_to_its_end(hub: Hub, conv: str):
    assert members(conv) == set()
    async with opened(conv) as _, opened(conv) as _:
        assert len(members(conv)) == 2
    assert members(conv) == set()


async def test_channels_own_client_for_tests_can_read_what_is_sent(hub: Hub, conv: str):
    """An app's author tests with it; it takes a message with text alone."""
    tab = socket(conv)
    await tab.connect(timeout=GENTLE)
    message = await tab.receive_json_from(timeout=GENTLE)
    await tab.disconnect(timeout=GENTLE)

    assert message["event"]["type"] == "ws.hello"


async def test_a_refused_socket_was_never_in_the_group(hub: Hub, conv: str):
    async with opened(conv):
        for refused in (socket(conv, None), socket(conv, "bert")):
            connected, _ = await refused.connect(timeout=GENTLE)
            assert not connected
        assert len(members(conv)) == 1
    for query in ({"cursor": "x"}, {"profile": "nobody"}):
        told = socket(conv, **query)
        await told.connect(timeout=GENTLE)
        assert (await event(told))["type"] == "ws.error"
        assert members(conv) == set()
        await told.disconnect(timeout=GENTLE)


@pytest.mark.parametrize("code", [4010, 4501, 4503, 4509, 1012])
async def test_a_control_message_closes_every_tab_of_its_conversation_alone(
    hub: Hub, conv: str, code: int
):
    other = f"{conv}.other"
    async with opened(other) as untouched, opened(conv) as one, opened(conv) as two:
        await close_sockets(conv, code)
        assert [await tab.closed() for tab in (one, two)] == [code, code]
        await untouched.send("ping")
        assert (await untouched.frame())["type"] == "ws.pong"


async def test_a_group_name_is_legal_whatever_the_conversation_is_called():
    for conv_id in ("a", "a" * 128, "A.b_c:d-9", "ü🦊"):
        layer().require_valid_group_name(control_group(conv_id))
    assert control_group("a") != control_group("b")


@pytest.mark.parametrize("is_known", [False, True])
async def test_sockets_of_a_hub_that_drains_are_told_to_come_back(
    hub: Hub, conv: str, is_known: bool
):
    if is_known:
        await hub.sessions.open(conv, owner="visitor:anna", profile=None)
    await hub.aclose()
    late = socket(conv)
    await late.connect(timeout=GENTLE)
    error = await event(late)
    closing = await late.receive_output(timeout=GENTLE)

    assert (error["type"], error["data"]["code"]) == ("ws.error", "draining")
    assert closing["code"] == 1012
    await late.disconnect(timeout=GENTLE)


async def test_a_message_over_the_bound_closes_on_servers_that_have_none(hub: Hub, conv: str):
    async with opened(conv) as tab:
        await tab.send("ü" * (hub.settings.message_max_bytes // 2 + 1))
        assert await tab.closed() == 1009


async def test_the_fifth_malformed_message_closes_its_socket(hub: Hub, conv: str):
    async with opened(conv) as tab:
        for _ in range(5):
            await tab.send("no json")
        told = [await tab.frame() for _ in range(5)]
        assert await tab.closed() == 4513

    assert {(error["type"], error["data"]["code"]) for error in told} == {("ws.error", "bad_frame")}


async def test_a_client_that_reads_nothing_holds_no_place_while_it_is_closed(hub: Hub, conv: str):
    """A server may take its time with the close of such a socket."""
    consumer: Any = ChatConsumer.as_asgi()
    arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    arriving.put_nowait({"type": "websocket.connect"})
    greeted, closing = asyncio.Event(), asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close":
            closing.set()
            await asyncio.Event().wait()
        if message["type"] == "websocket.send":
            greeted.set()

    serving = asyncio.create_task(
        consumer(scope(conv, "anna"), arriving.get, send), name="a socket that hangs"
    )
    async with asyncio.timeout(GENTLE):
        await greeted.wait()
    assert len(hub.streams.connections()) == 1
    await close_sockets(conv, 4008)
    async with asyncio.timeout(GENTLE):
        await closing.wait()

    assert hub.streams.connections() == ()
    serving.cancel()
    await asyncio.wait({serving})


async def test_a_client_that_leaves_while_it_is_let_in_leaves_nothing(hub: Hub, conv: str):
    before = tasks()
    leaving = socket(conv)
    await leaving.send_input({"type": "websocket.connect"})
    await leaving.send_input({"type": "websocket.disconnect", "code": 1006})
    await leaving.wait(timeout=GENTLE)

    assert members(conv) == set()
    assert hub.streams.connections() == ()
    assert tasks() - before == {f"follower:{conv}", "session-evictor"}


async def test_a_client_that_is_gone_when_it_is_accepted_leaves_nothing(hub: Hub, conv: str):
    """uvicorn raises an OSError out of `send` then."""
    before = tasks()
    consumer: Any = ChatConsumer.as_asgi()
    arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    arriving.put_nowait({"type": "websocket.connect"})

    async def gone(message: dict[str, Any]) -> None:
        raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await consumer(scope(conv, "anna"), arriving.get, gone)

    assert members(conv) == set()
    assert hub.streams.connections() == ()
    assert {name for name in tasks() - before if name.startswith("pump:")} == set()


async def test_a_consumer_its_server_kills_leaves_nothing(hub: Hub, conv: str):
    """Daphne cancels what lingers, and everything at its end."""
    before = tasks()
    killed = socket(conv)
    await killed.connect(timeout=GENTLE)
    await event(killed)
    future = killed.future
    assert future is not None
    future.cancel()
    await asyncio.wait({future}, timeout=GENTLE)

    assert future.cancelled()
    left = {name for name in tasks() - before if name.startswith("pump:")}
    assert (left, members(conv), hub.streams.connections()) == (set(), set(), ())


async def test_two_hundred_visits_leave_no_task_no_socket_and_no_membership(hub: Hub, conv: str):
    async with opened(conv):
        pass
    before = tasks()
    for _ in range(200):
        async with opened(conv):
            pass

    assert tasks() == before
    assert hub.streams.connections() == ()
    assert members(conv) == set()


async def test_visits_in_the_middle_of_an_answer_do_not_disturb_it(hub: Hub, conv: str):
    async with opened(conv) as stayed:
        await hub.sessions.submit(asked("hello", conv))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != "inference.finished":
            seen.append(await stayed.frame())
            visit = socket(conv)
            await visit.connect(timeout=GENTLE)
            await visit.disconnect(timeout=GENTLE)

    assert [frame["seq"] for frame in seen] == list(range(1, len(seen) + 1))
    assert seen[-1]["data"]["status"] == "completed"


async def test_the_end_of_the_hub_ends_every_task(hub: Hub, conv: str):
    before = tasks()
    async with opened(conv):
        await hub.sessions.submit(asked("hang", conv))
        assert tasks() > before
    await hub.aclose()
    await hub.aclose()

    assert tasks() == before
