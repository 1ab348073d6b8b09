"""People with browsers, in this process: requests by Django's client, sockets by Channels' own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient

from chat.routing import websocket_application

GENTLE = 10.0
"""Seconds for what takes milliseconds."""


class Person:
    """A browser. With a user: signed in; without: one that has never been here."""

    def __init__(self, user: User | None = None) -> None:
        self.user = user
        self.client = AsyncClient()

    @property
    def owner(self) -> str:
        assert self.user is not None
        return f"user:{self.user.pk}"

    async def get(self, path: str) -> Any:
        return await self.client.get(path)

    async def post(self, path: str, body: object) -> Any:
        """A call with JSON."""
        return await self.client.post(path, json.dumps(body), content_type="application/json")

    async def submit(self, path: str, **fields: str) -> Any:
        """A page's form."""
        return await self.client.post(path, fields)

    async def handshake(self, conv_id: str, **query: str) -> WebsocketCommunicator | None:
        """A socket that was opened; None where it was refused."""
        cookies = "; ".join(f"{name}={item.value}" for name, item in self.client.cookies.items())
        socket = WebsocketCommunicator(
            websocket_application,
            f"/ws?{urlencode({'conv_id': conv_id, **query})}",
            headers=[
                (b"host", b"testserver"),
                (b"origin", b"http://testserver"),
                (b"cookie", cookies.encode()),
            ],
        )
        accepted, _ = await socket.connect(timeout=GENTLE)
        if accepted:
            return socket
        await socket.disconnect(timeout=GENTLE)
        return None

    async def may_enter(self, conv_id: str) -> bool:
        """Whether a socket is opened; it is closed again."""
        socket = await self.handshake(conv_id)
        if socket is not None:
            await socket.disconnect(timeout=GENTLE)
        return socket is not None

    @asynccontextmanager
    async def socket(self, conv_id: str) -> AsyncIterator[WebsocketCommunicator]:
        """A socket that has been greeted."""
        socket = await self.handshake(conv_id)
        assert socket is not None, "the handshake was refused"
        assert await heard(socket) == "ws.hello"
        assert await heard(socket) == "timeline.snapshot"
        yield socket
        await socket.disconnect(timeout=GENTLE)


async def visitor() -> Person:
    """Somebody who has opened the front page."""
    person = Person()
    assert (await person.get("/")).status_code == 200
    return person


async def signed_in(name: str, *permissions: str, **fields: Any) -> Person:
    """Somebody with an account of that name and those permissions."""
    user = await User.objects.acreate(username=name, password="!", **fields)
    for codename in permissions:
        await user.user_permissions.aadd(await Permission.objects.aget(codename=codename))
    person = Person(user)
    await person.client.aforce_login(user)
    return person


async def heard(socket: WebsocketCommunicator) -> str:
    """The type of the next frame."""
    message = await socket.receive_output(timeout=GENTLE)
    assert message["type"] == "websocket.send", message
    kind: str = json.loads(message["text"])["event"]["type"]
    return kind


async def closed(socket: WebsocketCommunicator) -> int:
    """Reads on until the socket is closed, and returns the code."""
    while True:
        message = await socket.receive_output(timeout=GENTLE)
        if message["type"] == "websocket.close":
            code: int = message["code"]
            return code
