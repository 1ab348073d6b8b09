"""Server: the calls of docs/protocol.md §4 and §5 that the commands make, as one account."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx2
import msgspec
from django.conf import settings
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

from sessions_app.access import PERMISSIONS, Action
from sessions_app.values import LiveSession

from ..frames import Cursor
from ..streams import StreamInfo
from .errors import NotThere, Refusal, Unreachable
from .login import Login

Frame: TypeAlias = dict[str, Any]
T = TypeVar("T")

TIMEOUT_SECONDS = 30
_BEYOND_EVERY_VERSION = 2**53 - 1
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


class Server:
    """A server at an address without a slash at its end. Every call may raise a RemoteError."""

    def __init__(
        self, url: str, login: Login, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url
        self._login = login
        self._origin = _origin(url)
        # A proxy of the environment's cannot reach what listens on this machine alone.
        self._local = urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
        self._http = httpx2.AsyncClient(
            cookies=login.cookies,
            headers={"Origin": self._origin, "Accept": "application/json"},
            timeout=TIMEOUT_SECONDS,
            trust_env=not self._local,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def conversations(self) -> bytes:
        """GET /api/debug/conversations, as it was sent."""
        response = await self._request("GET", "/api/debug/conversations")
        if response.status_code == 404:
            raise NotThere(self._not_listed())
        self._read(response)
        return response.content

    async def head(self, conv_id: str) -> Cursor:
        """Where the conversation's log stands. Creates no conversation."""
        query = {"conv_id": conv_id, "since_version": str(_BEYOND_EVERY_VERSION)}
        response = await self._request("GET", f"/api/timeline?{urlencode(query)}")
        if response.status_code == 404:
            raise NotThere(self._no_such(conv_id, "transcript"))
        return Cursor.parse(self._read(response)["cursor"])

    async def frames(self, conv_id: str, *, after: int, most: int) -> Sequence[Frame]:
        """Frames that the log still has; none where this account may not use the debug API."""
        query = {"since_seq": max(0, after), "limit": most}
        path = f"/api/debug/events/{quote(conv_id, safe='')}?{urlencode(query)}"
        response = await self._request("GET", path)
        if response.status_code == 404:
            return ()
        return [logged["frame"]["event"] for logged in self._read(response)["events"]]

    async def cancel(self, conv_id: str, *, inference_id: str | None, queue: bool) -> str:
        """POST /api/chat/cancel; the id of the inference that ends."""
        asked = {"conv_id": conv_id, "inference_id": inference_id, "queue": queue}
        response = await self._request(
            "POST", "/api/chat/cancel", content=json.dumps(asked), headers=await self._csrf()
        )
        if response.status_code == 404:
            raise NotThere(self._no_such(conv_id, "cancel"))
        return str(self._read(response)["inference_id"])

    @asynccontextmanager
    async def socket(self, conv_id: str, cursor: Cursor) -> AsyncIterator[ClientConnection]:
        """GET /ws from the cursor on. Raises what `websockets` raises."""
        query = urlencode({"conv_id": conv_id, "cursor": str(cursor)})
        cookies = "; ".join(f"{name}={value}" for name, value in self._login.cookies.items())
        async with connect(
            f"{self.url.replace('http', 'ws', 1)}/ws?{query}",
            origin=Origin(self._origin),
            additional_headers={"Cookie": cookies},
            compression=None,
            max_size=None,
            proxy=None if self._local else True,
        ) as websocket:
            yield websocket

    async def _csrf(self) -> dict[str, str]:
        """The headers of a call that changes something: every page sets the token as a cookie."""
        page = await self._request("GET", "/", headers={"Accept": "text/html"})
        token = self._http.cookies.get(settings.CSRF_COOKIE_NAME)
        if token is None:
            raise Unreachable(self._not_ours(page))
        return {"X-CSRFToken": token, "Content-Type": "application/json"}

    async def _request(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            response = await self._http.request(method, f"{self.url}{path}", **how)
        except httpx2.HTTPError as error:
            told = str(error) or type(error).__name__
            raise Unreachable(
                f"no server answers at {self.url} ({told}); is it running? "
                "Give its address with --url"
            ) from None
        if response.is_redirect:
            location = response.headers.get("Location", "")
            raise Unreachable(f"{self.url} sends on to {location}; give that address with --url")
        return response

    def _read(self, response: httpx2.Response) -> Any:
        """The answer's JSON. Raises Refusal with the server's own words."""
        try:
            body = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            raise Unreachable(self._not_ours(response)) from None
        if response.status_code >= 400:
            told = body.get("error") if isinstance(body, dict) else None
            if told is None:
                raise Unreachable(self._not_ours(response))
            raise Refusal(f"the server said {response.status_code}: {told}")
        return body

    def _not_ours(self, response: httpx2.Response) -> str:
        kind = response.headers.get("Content-Type", "nothing")
        hint = "Is its host name in ALLOWED_HOSTS? " if response.status_code == 400 else ""
        return (
            f"what answers at {self.url} does not speak as Webchat does (got "
            f"{response.status_code} {kind}). {hint}Give the address of Webchat with --url"
        )

    def _not_listed(self) -> str:
        """What a 404 means where there is nothing to miss."""
        if "view" in self._login.identity.anywhere:
            return (
                f"the server at {self.url} does not know this log-in; give this command the "
                "DATABASE_URL or WEBCHAT_STATE_DIR, and the SECRET_KEY, that the server has"
            )
        return f"{self._login.name!r} may not list sessions: {_takes('view')}"

    def _no_such(self, conv_id: str, action: Action) -> str:
        """What a 404 means for a conversation: absent, or not for this account."""
        if action in self._login.identity.anywhere:
            return f"there is no conversation {conv_id!r} at {self.url}"
        name = self._login.name
        return f"{name!r} has no conversation {conv_id!r}; those of others: {_takes(action)}"


def _takes(action: Action) -> str:
    return f"that takes staff with the permission {PERMISSIONS[action]} (--user NAME)"


def address(text: str) -> str:
    """The address of a server, without a slash at its end. Raises Unreachable."""
    parts = urlsplit(text)
    try:
        valid = parts.scheme in _DEFAULT_PORT and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise Unreachable(
            f"{text[:200]!r} is no address of a server; expected http://HOST:PORT or https://HOST"
        )
    return text.rstrip("/")


def _origin(url: str) -> str:
    """The server's own origin, as a browser would name it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORT[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def listed(body: bytes) -> Sequence[tuple[LiveSession, StreamInfo]]:
    """The sessions of `Server.conversations`. Raises Unreachable where it is another version's."""
    try:
        sessions = msgspec.json.decode(body, type=list[LiveSession])
        streams = msgspec.json.decode(body, type=list[StreamInfo])
    except msgspec.ValidationError as error:
        raise Unreachable(f"the server lists sessions as another version does: {error}") from None
    return list(zip(sessions, streams, strict=True))
