"""Proves chat/remote/server.py, against the application itself and against what is no Webchat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session

from chat.hub import Hub
from chat.remote.errors import NotThere, Refusal, RemoteError, Unreachable
from chat.remote.login import logged_in
from chat.remote.server import Server, address, listed
from sessions_app.testing import Gate, ScriptedEngine
from sessions_app.values import PromptRequest
from tests.chat.people import signed_in
from webchat_project.testing import composition, running_hub

pytestmark = pytest.mark.django_db(transaction=True)

URL = "http://testserver"


@pytest.fixture
def gate() -> Gate:
    return Gate("waits")


@pytest_asyncio.fixture
async def hub(plain_static: None, gate: Gate) -> AsyncIterator[Hub]:
    async with running_hub(engine=ScriptedEngine(gate)) as running:
        yield running


@asynccontextmanager
async def as_(
    username: str, *, url: str = URL, transport: httpx2.AsyncBaseTransport | None = None
) -> AsyncIterator[Server]:
    """The application as that account's commands see it."""
    login = logged_in(username)
    entered = await sync_to_async(login.__enter__)()
    transport = transport or httpx2.ASGITransport(composition().application)
    async with Server(url, entered, transport=transport) as server:
        yield server
    await sync_to_async(login.__exit__)(None, None, None)


@pytest_asyncio.fixture
async def conv(hub: Hub, gate: Gate) -> str:
    """A conversation in which something runs. It is Anna's."""
    anna = await signed_in("anna")
    conv_id = str(uuid4())
    await hub.sessions.submit(PromptRequest(owner=anna.owner, prompt="hi", conv_id=conv_id))
    await gate.reached()
    return conv_id


async def staff(*permissions: str) -> None:
    await signed_in("operator", *permissions, is_staff=True)


async def test_staff_list_what_lives(hub: Hub, conv: str):
    await staff("view_livesession")
    async with as_("operator") as server:
        [(session, stream)] = listed(await server.conversations())

    assert (session.conv_id, stream.head_seq) == (conv, 2)


async def test_staff_and_the_owner_read_where_the_log_stands(hub: Hub, conv: str):
    await staff("transcript_livesession")
    for name in ("operator", "anna"):
        async with as_(name) as server:
            assert (await server.head(conv)).seq == 2
    async with as_("operator") as server:
        frames = await server.frames(conv, after=1, most=10)
        assert [frame["type"] for frame in frames] == ["inference.started"]
    async with as_("anna") as server:
        assert await server.frames(conv, after=0, most=10) == ()


async def test_staff_cancel_by_the_csrf_token_of_a_page(hub: Hub, conv: str):
    await staff("cancel_livesession")
    async with as_("operator") as server:
        with pytest.raises(Refusal, match="409"):
            await server.cancel(conv, inference_id="another", queue=False)
        ended = await server.cancel(conv, inference_id=None, queue=True)
    assert len(ended) == 36


ASKED: dict[str, Callable[[Server, str], Awaitable[object]]] = {
    "view": lambda server, conv: server.conversations(),
    "transcript": lambda server, conv: server.head(conv),
    "cancel": lambda server, conv: server.cancel(conv, inference_id=None, queue=False),
}


@pytest.mark.parametrize("action", ASKED)
async def test_who_lacks_a_permission_is_told_which(hub: Hub, conv: str, action: str):
    await staff()
    async with as_("operator") as server:
        with pytest.raises(
            NotThere, match=rf"'operator'.*staff.*sessions_app\.{action}_livesession"
        ):
            await ASKED[action](server, conv)


@pytest.mark.parametrize("action", ["transcript", "cancel"])
async def test_a_conversation_that_is_absent_is_said_to_be_and_is_not_made(hub: Hub, action: str):
    await staff(f"{action}_livesession")
    async with as_("operator") as server:
        with pytest.raises(NotThere, match="no conversation 'absent' at http://testserver"):
            await ASKED[action](server, "absent")
    assert await hub.sessions.find("absent") is None


async def test_a_server_with_another_database_is_suspected(hub: Hub):
    await staff("view_livesession")
    async with as_("operator") as server:
        await Session.objects.all().adelete()
        with pytest.raises(NotThere, match=r"DATABASE_URL.*SECRET_KEY"):
            await server.conversations()


def answering(status: int, *, json: object = None, **headers: str) -> httpx2.MockTransport:
    body = b"<html>" if json is None else None
    return httpx2.MockTransport(
        lambda request: httpx2.Response(status, content=body, json=json, headers=headers)
    )


def nobody(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("Connection refused")


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        (httpx2.MockTransport(nobody), r"no server answers at http://testserver \(Connection ref"),
        (answering(200), "does not speak as Webchat does"),
        (answering(502), "got 502"),
        (answering(400), "ALLOWED_HOSTS"),
        (answering(200, json={"odd": 1}), "another version"),
        (answering(500, json={"message": "?"}), "got 500"),
        (answering(301, Location="https://elsewhere/"), "sends on to https://elsewhere/"),
    ],
)
async def test_what_is_no_webchat_is_told_in_words(transport: httpx2.MockTransport, words: str):
    await staff("view_livesession")
    async with as_("operator", transport=transport) as server:
        with pytest.raises(Unreachable, match=words):
            listed(await server.conversations())


async def test_a_page_without_a_token_is_none_of_ours():
    await staff("cancel_livesession")
    async with as_("operator", transport=answering(200)) as server:
        with pytest.raises(Unreachable, match="does not speak"):
            await server.cancel("c", inference_id=None, queue=False)


@pytest.mark.parametrize(
    "text", ["", "localhost:8000", "ws://x", "http://", "http://x:99999", "http://x/?q=1", "http:x"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str):
    with pytest.raises(RemoteError, match="expected http://HOST:PORT"):
        address(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://chat.example", "https://chat.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_ends_without_a_slash(text: str, url: str):
    assert address(text) == url


async def test_no_log_in_is_left(hub: Hub):
    await signed_in("operator", is_staff=True)
    before = await Session.objects.acount()
    async with as_("operator"):
        assert await Session.objects.acount() == before + 1
    assert await Session.objects.acount() == before
    assert (await User.objects.aget(username="operator")).is_staff
