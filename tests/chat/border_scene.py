"""A scene whose visitors stand at the ASGI border: each socket is a whole ChatConsumer.

Its client says things, is gone in the middle of anything, or is killed by its server; operators and
the end of the process ask it to go. Besides what a Scene looks at, this one fails where a socket
breaks ASGI's grammar (one accept, then frames one at a time, one close, nothing after it), where a
ping is not answered once and in order, where a close code is none that was asked for, or where
anything of a socket is left once its consumer has ended: a task, a count, a seat, a membership.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from typing import Any, cast
from urllib.parse import urlencode

from channels.layers import InMemoryChannelLayer, get_channel_layer
from prometheus_client import CollectorRegistry

from chat.apps import install
from chat.conf import chat_settings
from chat.consumers import BAD_FRAMES, CLOSE_BAD_REQUEST, ChatConsumer
from chat.control import close_sockets, control_group
from chat.guard import Guard, Layer
from chat.hub import Hub
from chat.identities import Identities
from chat.pool import CLOSE_RESTARTING, CLOSE_SLOW, Connection
from chat.ports import Sessions
from chat.wire import EXTENSION
from sessions_app.access import Identity
from sessions_app.values import ProfileInfo, SessionInfo
from tests.chat.scene import FarTab, RememberingLog, Scene
from tests.chat.wire import SocketClosed, Truth

CONV, OWNER = "conv", "visitor:anna"
SOON = 1.0
"""A second of a time that stands still while anybody has something to do."""


class OpenHouse:
    """The one conversation, as transport asks for it. It takes a moment."""

    info = SessionInfo(
        conv_id=CONV, owner=OWNER, title="", profile="chat", running=False,
        paused=False, queue_depth=0, step_mode=False, created_ms=0, last_activity_ms=0,
    )  # fmt: skip

    def profiles(self) -> tuple[ProfileInfo, ...]:
        return ()

    async def find(self, conv_id: str) -> SessionInfo:
        await asyncio.sleep(0)
        return self.info

    async def open(
        self,
        conv_id: str,
        *,
        owner: str,
        profile: str | None,
        known: SessionInfo | None = None,
    ) -> SessionInfo:
        await asyncio.sleep(0)
        return self.info


def layer() -> InMemoryChannelLayer:
    found = get_channel_layer()
    assert isinstance(found, InMemoryChannelLayer)
    return found


class BorderTab(FarTab):
    """A tab whose far end is the consumer, and which is its server too.

    `raises`: sending to a client that is gone raises, as uvicorn has it; else nothing happens.
    """

    def __init__(self, scene: BorderScene, truth: Truth) -> None:
        super().__init__(scene.streams, CONV, flow=scene.flow, truth=truth, near=scene.near)
        self.scene = scene
        self.code: int | None = None
        self.asked: list[str] = []
        """Nonces of the pings that were sent on the socket that is open."""
        self.answered: list[str] = []
        self.bad = 0
        self._accepted = self._gone = self._sending = False

    # What a browser does

    def join(self, cursor: str | None = None) -> None:
        assert self._pump is None
        self._greeted, self.code = None, None
        self._accepted = self._gone = False
        self.asked, self.answered, self.bad = [], [], 0
        if cursor is not None:
            epoch, _, seq = cursor.partition(".")
            self.epoch, self.position = int(epoch), int(seq)
        consumer = ChatConsumer()
        consumer._connection = self.connection = Connection(flow=self.flow)
        self._arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._arriving.put_nowait({"type": "websocket.connect"})
        serving: Any = consumer(self._scope(cursor), self._arriving.get, self._send)
        self._pump = asyncio.create_task(serving, name="consumer")
        self._pump.add_done_callback(lambda _: self._news.set())

    async def drop(self) -> None:
        """The client is gone, whatever the consumer does."""
        self._hangs_up()
        self._arriving.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await self._end()

    async def killed(self) -> None:
        """The server ends the consumer."""
        self._hangs_up()
        assert self._pump is not None
        self._pump.cancel()
        await self._end()

    async def closed(self) -> int:
        await self._end()
        assert self.code is not None
        return self.code

    @property
    def was_closed(self) -> bool:
        return self._pump is not None and self.code is not None

    def says(self, text: str) -> None:
        self._arriving.put_nowait({"type": "websocket.receive", "text": text})

    def pong(self) -> None:
        self.says(json.dumps({"type": "ws.pong", "seq": self.position}))

    def ping(self) -> None:
        nonce = f"ping {len(self.asked)}"
        self.asked.append(nonce)
        self.says(json.dumps({"type": "ws.ping", "nonce": nonce}))

    async def greeted(self) -> None:
        """Returns once it was let in, or sent away."""
        while self._greeted is None and not self.was_closed:
            await self._next()

    async def answered_all(self) -> None:
        while self.answered != self.asked:
            await self._next()

    # What its server does

    async def _send(self, message: Mapping[str, Any]) -> None:
        assert not self._sending, "two at once send to one socket"
        self._sending = True
        try:
            await asyncio.sleep(0)
            if message["type"] == "websocket.send":
                await self._reading.wait()
            if self._gone:
                if self.scene.raises:
                    raise ConnectionResetError("the client is gone")
                return
            assert self.code is None, f"{message} after the close"
            match message["type"]:
                case "websocket.accept":
                    assert not self._accepted, "accepted twice"
                    self._accepted = True
                case "websocket.send":
                    assert self._accepted, "a frame before the accept"
                    await self._receive(message["text"])
                case "websocket.close":
                    self.code = message["code"]
                    self._arriving.put_nowait({"type": "websocket.disconnect", "code": self.code})
                    self._news.set()
        finally:
            self._sending = False

    def _write(self, messages: bytes) -> bool:
        if self._gone or self.code is not None:
            return False
        if self._sending or not self._accepted:
            self._broken = AssertionError("written in place before its turn")
        return super()._write(messages)

    def _take(self, event: Any, text: str) -> None:
        super()._take(event, text)
        if event["type"] == "ws.pong":
            self.answered.append(event["data"]["nonce"])
            assert self.answered == self.asked[: len(self.answered)]

    def _hangs_up(self) -> None:
        self._gone = True
        self._reading.set()

    async def _end(self) -> None:
        """Returns when the consumer has ended, and nothing of it is left."""
        assert self._pump is not None
        await asyncio.wait({self._pump})
        ended, self._pump = self._pump, None
        if self._broken is not None:
            raise self._broken
        if not ended.cancelled() and (error := ended.exception()) is not None:
            # Out of the accept it is the server's to hear; no other may get that far.
            if not isinstance(error, ConnectionResetError):
                raise error
            assert not self._accepted, error
        self.scene.check_nothing_is_left_of(self.connection)

    async def _next(self) -> None:
        if self.was_closed:
            raise SocketClosed(f"with {self.code}")
        assert self._pump is not None
        if self._pump.done():
            await self._pump
            raise AssertionError("the consumer went without a close")
        self._news.clear()
        await self._news.wait()

    def _scope(self, cursor: str | None) -> dict[str, Any]:
        query = {"conv_id": CONV} | ({} if cursor is None else {"cursor": cursor})
        return {
            "type": "websocket",
            "path": "/ws",
            "query_string": urlencode(query).encode(),
            "headers": [],
            "cookies": {},
            "identity": Identity(OWNER),
            "session_key": "a key",
            "extensions": {EXTENSION: {"write": self._write}} if self.near else {},
        }


class BorderScene(Scene):
    """A Scene at the border. Visitors may also: ping, talk nonsense, be killed, and have operators
    close every socket (`close`, a code) or the process ask all of them to leave (`leave`)."""

    def __init__(self, *play: Any, raises: bool = False, **more: Any) -> None:
        super().__init__(*play, log=RememberingLog, **more)
        self.raises = raises
        self.flow = self._flow
        self._late += SOON
        self._codes: set[int] = set()

    async def __call__(self) -> None:
        self.layer = layer()
        try:
            await super().__call__()
            assert control_group(CONV) not in self.layer.groups
            assert not self.hub.limits._sockets
            assert not self.hub.guard._seats
        finally:
            install(None)
            await self.layer.flush()

    def _prepare(self) -> None:
        self.hub = Hub(
            sessions=cast(Sessions, OpenHouse()),
            streams=self.streams,
            guard=Guard(
                layer=cast(Layer, self.layer), identities=self._identities,
                find=OpenHouse().find, every=3600,
            ),
            identities=Identities(lambda keys: dict.fromkeys(keys, Identity(OWNER))),
            settings=chat_settings(),
            metrics=CollectorRegistry(),
        )  # fmt: skip
        install(self.hub)

    async def _tidy(self) -> None:
        await self.hub.guard.aclose()

    def check_nothing_is_left_of(self, connection: Connection) -> None:
        assert connection not in self.streams.connections(), "its place in the pool is left"
        assert connection not in {seat.connection for seat in self.hub.guard._seats}
        sockets = sum(tab.online for tab in self.tabs)
        members = self.layer.groups.get(control_group(CONV), {})
        assert len(members) <= sockets, "a membership is left"
        assert self.hub.limits._sockets["sockets_process", ""] <= sockets, "a count is left"
        pumps = sum(task.get_name().startswith("pump:") for task in asyncio.all_tasks())
        assert pumps <= sockets, "a pump is left"

    def _tab(self, truth: Truth) -> BorderTab:
        return BorderTab(self, truth)

    async def _does(self, tab: FarTab, what: str, number: int) -> None:
        assert isinstance(tab, BorderTab)
        match what:
            case "ping" if tab.online:
                tab.ping()
            case "nonsense" if tab.online:
                tab.says("nonsense")
                tab.bad += 1
            case "kill" if tab.online:
                await tab.killed()
            case "close":
                self._codes.add(number)
                await close_sockets(CONV, number)
            case "leave":
                self._codes.add(CLOSE_RESTARTING)
                for connection in self.streams.connections():
                    connection.leave(CLOSE_RESTARTING)
            case _:
                await super()._does(tab, what, number)

    async def _sent_away(self, tab: FarTab) -> None:
        assert isinstance(tab, BorderTab)
        code = await tab.closed()
        nonsense = {CLOSE_BAD_REQUEST} if tab.bad >= BAD_FRAMES else set()
        slow = {CLOSE_SLOW} if tab in self.slow else set()
        assert code in self._codes | nonsense | slow, f"closed with {code}"

    def _come(self, tab: FarTab, cursor: str | None = None) -> None:
        if cursor is None:
            tab.rejoin()
        else:
            tab.join(cursor)

    async def _is_there(self, tab: FarTab) -> None:
        assert isinstance(tab, BorderTab)
        await super()._is_there(tab)
        async with asyncio.timeout(SOON):
            await tab.greeted()

    async def _level(self, tab: FarTab) -> None:
        assert isinstance(tab, BorderTab)
        while True:
            try:
                await super()._level(tab)
                tab.ping()
                await tab.answered_all()
                return
            except SocketClosed:
                await self._sent_away(tab)
                self._come(tab)

    async def _identities(self, keys: Collection[str]) -> Mapping[str, Identity]:
        return dict.fromkeys(keys, Identity(OWNER))
