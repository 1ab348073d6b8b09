"""ChatClient: one person in one conversation, in the process of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotFound
from django.test import AsyncRequestFactory
from django.urls import resolve

from sessions_app.inference.errors import WebchatError

from ..consumers import ChatConsumer
from ..identity import VISITOR_KEY, identify
from ..middleware import ProtocolErrorsMiddleware
from .answer import Answer
from .reader import Frame, FrameReader

PONG_BYTES = 64 * 1024


class Refusal(AssertionError):
    """The server said no where the test expected a yes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; `body` is what its JSON says."""

    status: int
    body: Any


class Socket(FrameReader):
    """One open socket of the conversation. Made by `ChatClient.socket`."""

    def __init__(self, communicator: WebsocketCommunicator, patience: float) -> None:
        super().__init__()
        self._communicator = communicator
        self._patience = patience
        self._unanswered = 0

    async def frame(self) -> Frame:
        """The next frame, after answering a ping as a client must."""
        message = await self._message()
        if message["type"] != "websocket.send":
            raise Refusal(f"the server closed the socket with {message.get('code')}")
        frame = self.read(message["text"])
        self._unanswered += len(message["text"])
        if frame["type"] == "ws.ping" or self._unanswered >= PONG_BYTES:
            self._unanswered = 0
            await self.send({"type": "ws.pong", "seq": self.seq})
        return frame

    async def until(self, kind: str) -> list[Frame]:
        """All frames up to and with the first of that type."""
        seen: list[Frame] = []
        while not seen or seen[-1]["type"] != kind:
            try:
                seen.append(await self.frame())
            except TimeoutError:
                last = ", ".join(frame["type"] for frame in seen[-5:]) or "nothing"
                raise Refusal(
                    f"no {kind} within {self._patience:g} s; before that came: {last}"
                ) from None
        return seen

    async def closed(self) -> int:
        """Reads on until the server closes, and returns its code."""
        while (message := await self._message())["type"] == "websocket.send":
            self.read(message["text"])
        code: int = message["code"]
        return code

    async def send(self, message: object) -> None:
        """Sends JSON; a `str` goes out as it is."""
        text = message if isinstance(message, str) else json.dumps(message)
        await self._communicator.send_to(text_data=text)

    async def _message(self) -> dict[str, Any]:
        # The communicator's own timeout would end the consumer: let ours come first.
        far = 2 * self._patience
        async with asyncio.timeout(self._patience):
            message: dict[str, Any] = await self._communicator.receive_output(timeout=far)
        return message


class ChatClient:
    """Sends prompts and collects the frames of their answers.

    It stands behind the gates a browser passes with its cookies, its CSRF token and its Origin, and
    is let in as `visitor` or as the account `user`. From there on it meets the server's own views
    and sockets. `profile` is for a conversation that is new. `patience` is how many seconds of the
    loop's time it waits for a frame.

    Entering opens its socket, leaving closes it. Needs a hub, see `webchat_project.testing`; with a
    `user` also pytest's mark `django_db(transaction=True)`.
    """

    def __init__(
        self,
        conv_id: str | None = None,
        *,
        user: AbstractBaseUser | None = None,
        visitor: str = "test",
        profile: str | None = None,
        patience: float = 10.0,
    ) -> None:
        self.conv_id = conv_id or str(uuid4())
        self.user = user
        self.cookies: dict[str, str] = {}
        self.frames: list[Frame] = []
        """Every frame of the conversation that was read so far; none of the connection's own."""
        self._profile = profile
        self._patience = patience
        self._session = SessionStore()
        if user is None:
            self._session[VISITOR_KEY] = visitor
        self._stack = AsyncExitStack()
        self._socket: Socket | None = None
        self._answered = 0
        self._decided: set[str] = set()

    async def __aenter__(self) -> Self:
        query = {} if self._profile is None else {"profile": self._profile}
        self._socket = await self._stack.enter_async_context(self.socket(**query))
        await self._socket.until("timeline.snapshot")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    # An answer

    async def ask(self, prompt: str, **fields: object) -> Answer:
        """The whole answer to a prompt."""
        await self.send(prompt, **fields)
        return await self.answer()

    async def send(self, prompt: str, **fields: object) -> dict[str, Any]:
        """Posts a prompt and returns at once. `fields` are those of `POST /chat`."""
        given = {"prompt": prompt, "conv_id": self.conv_id, **fields}
        return self._taken(await self.post("/chat", given))

    async def answer(self) -> Answer:
        """The next inference that was not returned yet, once it has ended."""
        while (end := self._end_of_answer()) is None:
            await self._read()
        frames = tuple(self.frames[self._answered : end + 1])
        self._answered = end + 1
        return Answer(frames)

    async def until(self, kind: str) -> Frame:
        """Reads on to the next frame of that type."""
        while True:
            frame = await self._read(expecting=kind)
            if frame["type"] == kind:
                return frame

    # A pause

    async def pause(self) -> dict[str, Any]:
        """The data of the pause that waits, once one does."""
        while (pause := self._open_pause()) is None:
            if self._end_of_answer() is not None:
                raise Refusal("the inference ended without a pause")
            await self._read(expecting="debugger.pause")
        return pause

    async def decide(
        self,
        decision: str = "continue",
        *,
        edits: Mapping[str, Mapping[str, object]] | None = None,
        message: str = "",
    ) -> dict[str, Any]:
        """Ends the pause that waits, once one does."""
        pause_id = (await self.pause())["pauseId"]
        given = {"conv_id": self.conv_id, "pause_id": pause_id, "decision": decision}
        further = {"edits": edits, "message": message}
        reply = await self.post("/api/debug/continue", {**given, **further})
        ended: dict[str, Any] = self._taken(reply)["pause"]
        self._decided.add(pause_id)
        return ended

    async def step_mode(self, enabled: bool) -> None:
        """Switches step mode."""
        given = {"conv_id": self.conv_id, "enabled": enabled}
        self._taken(await self.post("/api/debug/step-mode", given))

    async def stop(self, *, queue: bool = False) -> None:
        """Ends the active inference, and with `queue` forgets what waits behind it."""
        given = {"conv_id": self.conv_id, "queue": queue}
        self._taken(await self.post("/api/chat/cancel", given))

    # The border itself

    async def post(self, path: str, body: object, **headers: str) -> Reply:
        """A JSON POST, whatever the answer; `headers` as `Idempotency_Key="…"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._call("POST", path, json.dumps(body), named)

    async def get(self, path: str, **query: str) -> Reply:
        """A GET, whatever the answer."""
        return await self._call("GET", f"{path}?{urlencode(query)}")

    @asynccontextmanager
    async def socket(self, **query: str) -> AsyncIterator[Socket]:
        """One more socket of the conversation, as of another tab. Raises Refusal."""
        asked = urlencode({"conv_id": self.conv_id, **query})
        communicator = WebsocketCommunicator(ChatConsumer.as_asgi(), f"/ws?{asked}")
        admitted: Any = {
            "identity": await identify(self.user or AnonymousUser(), self._session),
            "session_key": None,
            "cookies": self.cookies,
        }
        communicator.scope.update(admitted)
        let_in, _ = await communicator.connect(timeout=self._patience)
        if not let_in:
            raise Refusal(f"the socket of {self.conv_id!r} was refused: 403")
        try:
            yield Socket(communicator, self._patience)
        finally:
            await communicator.disconnect(timeout=self._patience)

    async def _call(
        self, method: str, path: str, data: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        request = AsyncRequestFactory(headers=headers).generic(
            method, path, data, content_type="application/json"
        )
        user = self.user or AnonymousUser()

        async def auser() -> Any:
            return user

        admitted: Any = request
        admitted.user, admitted.auser, admitted.session = user, auser, self._session
        request.COOKIES.update(self.cookies)
        response = await ProtocolErrorsMiddleware(_view)(request)
        self.cookies |= {name: cookie.value for name, cookie in response.cookies.items()}
        text = response.content.decode() if isinstance(response, HttpResponse) else ""
        is_json = response.get("Content-Type", "").startswith("application/json")
        return Reply(response.status_code, json.loads(text) if is_json else text)

    async def _read(self, expecting: str = "inference.finished") -> Frame:
        """The next frame of the stream."""
        if self._socket is None:
            raise RuntimeError("the client has no socket; enter it: async with ChatClient() as …")
        while True:
            try:
                frame = await self._socket.frame()
            except TimeoutError:
                last = ", ".join(frame["type"] for frame in self.frames[-5:]) or "nothing"
                raise Refusal(
                    f"no {expecting} within {self._patience:g} s; the last frames were: {last}"
                ) from None
            if "seq" in frame:
                self.frames.append(frame)
                return frame

    def _end_of_answer(self) -> int | None:
        for place in range(self._answered, len(self.frames)):
            if self.frames[place]["type"] == "inference.finished":
                return place
        return None

    def _open_pause(self) -> dict[str, Any] | None:
        over = {frame["id"] for frame in self.frames if frame["type"] == "debugger.resumed"}
        for frame in self.frames:
            if frame["type"] == "debugger.pause" and frame["id"] not in over | self._decided:
                data: dict[str, Any] = frame["data"]
                return data
        return None

    def _taken(self, reply: Reply) -> dict[str, Any]:
        if reply.status not in (200, 202):
            raise Refusal(f"{reply.status}: {reply.body}")
        body: dict[str, Any] = reply.body
        return body


async def _view(request: HttpRequest) -> HttpResponse:
    """What the address answers, a refusal in the protocol's form; what is unexpected is raised."""
    try:
        found = resolve(request.path_info)
        response: HttpResponse = await found.func(request, *found.args, **found.kwargs)
    except Http404:
        return HttpResponseNotFound()
    except WebchatError as refused:
        told = await ProtocolErrorsMiddleware(_view).process_exception(request, refused)
        if told is None:
            raise
        return told
    return response
