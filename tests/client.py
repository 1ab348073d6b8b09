"""A chat client that keeps the protocol to the letter, for tests through the border."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from chat.testing import Frame, FrameReader, text_of

__all__ = [
    "PATIENCE",
    "Frame",
    "Socket",
    "Visitor",
    "cursor_after",
    "stranger",
    "text_of",
    "visitor",
]

PATIENCE = 40.0
"""Seconds a test waits for the next frame, or for a close."""


class Visitor:
    """One browser: cookies, CSRF token, HTTP calls and sockets."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self.http = http

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """A JSON POST with the CSRF token; `headers` as `Idempotency_Key="…"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            path, json=body, headers={"X-CSRFToken": self.http.cookies["csrftoken"], **named}
        )

    async def chat(self, prompt: str, conv_id: str, **fields: object) -> dict[str, Any]:
        """A prompt that must be taken up; the answer's JSON."""
        answer = await self.post("/chat", {"prompt": prompt, "conv_id": conv_id, **fields})
        assert answer.status_code == 200, answer.text
        started: dict[str, Any] = answer.json()
        return started

    async def hear(self, prompt: str, conv_id: str, **fields: object) -> list[Frame]:
        """The frames of one prompt, from its message to its end."""
        async with self.socket(conv_id) as socket:
            await socket.until("timeline.snapshot")
            await self.chat(prompt, conv_id, **fields)
            return await socket.until("inference.finished")

    async def sign_in(self, username: str, password: str) -> None:
        """Fills in the log-in page."""
        await self.http.get("/accounts/login/")
        fields = {"username": username, "password": password}
        token = {"csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
        answer = await self.http.post("/accounts/login/", data={**fields, **token})
        assert answer.status_code == 302, answer.text

    async def get(self, path: str, **query: str) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def socket(
        self, conv_id: str, *, origin: str | None = None, **query: str
    ) -> AsyncIterator[Socket]:
        """An open socket of the conversation."""
        url = self.socket_url(conv_id=conv_id, **query)
        async with self.connected(url, origin=origin) as socket:
            yield socket

    @asynccontextmanager
    async def connected(self, url: str, *, origin: str | None = None) -> AsyncIterator[Socket]:
        """An open socket at any address."""
        async with connect(
            url,
            additional_headers=self.headers(),
            origin=Origin(origin or self.url),
            compression=None,
            proxy=None,
            max_size=None,
        ) as websocket:
            yield Socket(websocket)

    async def refused(self, conv_id: str, *, origin: str | None = None, **query: str) -> int:
        """The status that a handshake is refused with; it must be."""
        try:
            async with self.socket(conv_id, origin=origin, **query):
                raise AssertionError("the socket was opened")
        except InvalidStatus as refusal:
            return refusal.response.status_code

    def socket_url(self, **query: str) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/ws?{urlencode(query)}"

    def headers(self) -> Mapping[str, str]:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies.jar)
        return {"Cookie": cookies}


def stranger(url: str) -> httpx.AsyncClient:
    """A browser that has never been there: it has no cookie."""
    # Plain HTTP needs no certificates, and reading them takes longer than most tests.
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=False)


@asynccontextmanager
async def visitor(url: str) -> AsyncIterator[Visitor]:
    """A visitor who has opened the front page, as every browser has."""
    async with stranger(url) as http:
        page = await http.get("/")
        assert page.status_code == 200, page.text
        yield Visitor(url, http)


def cursor_after(frames: Sequence[Frame], count: int, *, epoch: int) -> str:
    """The cursor of a client that has the first `count` of a log's frames."""
    name = frames[count - 1].get("stream_id") if count else None
    return f"{epoch}.{count}" + (f".{name}" if name else "")


class Socket(FrameReader):
    """Receives frames over the network, and checks the law of the stream on each."""

    def __init__(self, websocket: ClientConnection) -> None:
        super().__init__()
        self.websocket = websocket

    async def frame(self) -> Frame:
        """The next frame's `event`."""
        async with asyncio.timeout(PATIENCE):
            message = await self.websocket.recv()
        assert isinstance(message, str)
        return self.read(message)

    async def until(self, kind: str) -> list[Frame]:
        """All frames up to and with the first of that type."""
        seen = []
        while True:
            seen.append(await self.frame())
            if seen[-1]["type"] == kind:
                return seen

    async def closed(self) -> int:
        """Reads on until the server closes, and returns its code."""
        try:
            while True:
                await self.frame()
        except ConnectionClosed:
            code = self.websocket.close_code
            assert code is not None
            return code

    def drop(self) -> None:
        """Tears the connection as a lost network does: without a word."""
        self.websocket.transport.abort()

    async def send(self, message: object) -> None:
        """Sends JSON; a `str` goes out as it is."""
        await self.websocket.send(message if isinstance(message, str) else json.dumps(message))
