"""A chat client that keeps the protocol to the letter, for tests through the border."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

Frame = dict[str, Any]


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

    async def get(self, path: str, **query: str) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def socket(
        self, conv_id: str, *, origin: str | None = None, **query: str
    ) -> AsyncIterator[Socket]:
        """An open socket of the conversation."""
        async with connect(
            self.socket_url(conv_id=conv_id, **query),
            additional_headers=self.headers(),
            origin=Origin(origin or self.url),
            compression=None,
            proxy=None,
            max_size=None,
        ) as websocket:
            yield Socket(websocket)

    def socket_url(self, **query: str) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/ws?{urlencode(query)}"

    def headers(self) -> Mapping[str, str]:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies.jar)
        return {"Cookie": cookies}


@asynccontextmanager
async def visitor(url: str) -> AsyncIterator[Visitor]:
    """A visitor who has opened the front page, as every browser has."""
    async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
        page = await http.get("/")
        assert page.status_code == 200, page.text
        yield Visitor(url, http)


class Socket:
    """Receives frames, and checks on each the law of the stream: `seq` rises by exactly 1."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.seq: int | None = None
        self.epoch = 0

    async def frame(self) -> Frame:
        """The next frame's `event`."""
        message = json.loads(await self.websocket.recv())
        assert message["sem"] is True
        event: Frame = message["event"]
        if event["type"] == "ws.hello":
            self.epoch = event["data"]["epoch"]
        if event["type"] == "timeline.snapshot":
            self.seq, self.epoch = event["data"]["version"], event["data"]["epoch"]
        if "seq" in event:
            assert self.seq is None or event["seq"] == self.seq + 1, (self.seq, event)
            self.seq = event["seq"]
        return event

    async def until(self, kind: str) -> list[Frame]:
        """All frames up to and with the first of that type."""
        seen = []
        while True:
            seen.append(await self.frame())
            if seen[-1]["type"] == kind:
                return seen

    async def send(self, message: object) -> None:
        await self.websocket.send(message if isinstance(message, str) else json.dumps(message))

    @property
    def cursor(self) -> str:
        return f"{self.epoch}.{self.seq}"


def text_of(frames: list[Frame], kind: str = "llm.delta") -> str:
    """The concatenated deltas."""
    return "".join(frame["data"]["delta"] for frame in frames if frame["type"] == kind)
