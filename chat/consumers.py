"""ChatConsumer: one websocket. Decodes and delegates; the pump is the only sender of frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.utils import await_many_dispatch
from structlog.contextvars import bind_contextvars

from sessions_app.access import Identity, can
from sessions_app.inference.errors import Draining, ProfileNotFound, Unavailable
from sessions_app.values import SessionInfo

from .address import client_address
from .apps import hub
from .control import join_control, leave_control
from .counts import CLOSE_REASONS
from .errors import BadConvId, TooManySockets
from .follower import StreamFollower
from .frames import (
    BadCursor,
    BadFrame,
    Cursor,
    Ping,
    Pong,
    connection_frame,
    decode_client,
    utf8_size,
)
from .guard import Seat
from .limits import Bucket
from .log import wall_ms
from .pool import CLOSE_RATE, CLOSE_RESTARTING, Connection
from .pump import pump
from .submission import cookie_profile, is_conv_id
from .wire import writing

logger = logging.getLogger(__name__)

CLOSE_TOO_BIG = 1009
CLOSE_TRY_LATER = 1013
CLOSE_BAD_REQUEST = 4513
CLOSE_TOO_MANY = 4529
BAD_FRAMES = 5
CLOSE_SECONDS = 1.0


class ChatConsumer(AsyncWebsocketConsumer):
    """A socket's life: checked, greeted, fed by its pump, and gone without a trace."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hub = hub()
        self._asked: dict[str, str] = {}
        self._conv_id = ""
        self._connection = Connection()
        self._identity = Identity(None)
        self._session_key: str | None = None
        self._seat: Seat | None = None
        self._follower: StreamFollower | None = None
        self._delivery: asyncio.Task[None] | None = None
        self._bad_frames = 0
        self._counted: tuple[str, str] | None = None
        self._messages = self._hub.limits.bucket()
        self._pongs = self._hub.limits.pong_bucket()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # What admission.py has found out.
        self._identity, self._session_key = scope["identity"], scope["session_key"]

        async def heard() -> Any:
            """What the client says, until this server has nothing more to hear from it."""
            while True:
                message = await receive()
                if message["type"] != "websocket.receive" or self._connection.closing is None:
                    return message

        try:
            await self._serve(scope, heard, send)
        finally:
            # Also where the server kills the consumer, or the client was gone before its accept.
            await self._leave()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """As every consumer of Channels is served; and a layer that is away is told of."""
        self.scope, self.base_send = scope, send
        layer = get_channel_layer(self.channel_layer_alias)
        assert layer is not None, "settings.CHANNEL_LAYERS has no default layer"
        self.channel_layer = layer
        try:
            self.channel_name = await self.channel_layer.new_channel()
        except Exception:  # each layer has its own errors
            logger.debug("the channel layer fails", exc_info=True)
            await receive()
            await self._refuse(Unavailable("the server is not complete; try again in a moment"))
            return
        said = partial(self.channel_layer.receive, self.channel_name)
        with suppress(StopConsumer):
            # The stubs know nothing of a layer's messages, of which the second is.
            await await_many_dispatch([receive, said], self.dispatch)  # type: ignore[list-item]

    async def dispatch(self, message: Any) -> None:
        """None of the handlers touches a database, so none needs a look at its connections."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: Any) -> None:
        await self._leave()
        raise StopConsumer

    async def connect(self) -> None:
        query = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        self._asked = {name: values[0] for name, values in query.items()}
        identity = self._identity
        if identity.owner is None:
            await self._forbid("nobody is known by its cookies")
            return
        conv_id = self._asked.get("conv_id", "")
        try:
            info = await self._hub.sessions.find(conv_id)
        except (Unavailable, Draining) as error:
            await self._refuse(error)
            return
        if info is not None and not can(identity, "transcript", info):
            await self._forbid("the conversation is somebody else's")
            return
        try:
            cursor = self._read_request(conv_id)
            self._enter(identity.owner)
            info = await self._hub.sessions.open(
                conv_id,
                owner=identity.owner,
                profile=self._asked.get("profile") or cookie_profile(self.scope["cookies"]),
                known=info,
            )
            if self._hub.draining and not info.running:
                raise Draining("the server is restarting; come back in a few seconds")
            if not can(identity, "transcript", info):
                await self._forbid("the conversation is somebody else's")
                return
            self._conv_id = conv_id
            self._sit_down(identity.owner, info)
            await join_control(self.channel_layer, conv_id, self.channel_name)
            await self._hub.streams.refresh(conv_id)
        except (
            BadConvId,
            BadCursor,
            ProfileNotFound,
            Draining,
            TooManySockets,
            Unavailable,
        ) as error:
            await self._refuse(error)
            return
        bind_contextvars(conv_id=conv_id)
        await self.accept()
        logger.info("a socket opened")
        self._follower = self._hub.streams.follower(conv_id)
        self._follower.join(self._connection)
        if self._hub.draining:
            self._connection.leave(CLOSE_RESTARTING)
        self._delivery = asyncio.create_task(
            self._deliver(self._follower, cursor, self._asked.get("profile") or info.profile),
            name=f"pump:{conv_id}",
        )

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._delivery is None:
            return
        try:
            if text_data is None:
                raise BadFrame("got a binary message; send text")
            if utf8_size(text_data) > self._hub.settings.message_max_bytes:
                self._connection.close(CLOSE_TOO_BIG)
                return
            said = decode_client(text_data)
        except BadFrame as error:
            if self._may_say(self._messages):
                self._bad_frame(str(error))
            return
        if not self._may_say(self._pongs if isinstance(said, Pong) else self._messages):
            return
        match said:
            case Ping(nonce):
                data = {"convId": self._conv_id, "serverTime": wall_ms()}
                if nonce is not None:
                    data["nonce"] = nonce
                self._connection.reply(connection_frame("ws.pong", self._conv_id, data))
            case Pong(seq) if seq is not None:
                self._connection.acknowledge(seq)

    def _may_say(self, bucket: Bucket) -> bool:
        if bucket.take():
            return True
        if self._connection.closing is None:
            self._hub.limits.refusals["messages"] += 1
        self._connection.close(CLOSE_RATE)
        return False

    async def control_close(self, message: dict[str, Any]) -> None:
        """The control group asks every socket of the conversation to close."""
        self._connection.close(message["code"])

    async def _leave(self) -> None:
        """Out of counts, guard, pool and group, its pump ended. Idempotent."""
        self._give_up_place()
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.cancel()
            await asyncio.wait({delivery})
        conv_id, self._conv_id = self._conv_id, ""
        if conv_id:
            why = CLOSE_REASONS.get(self._connection.closing, "other")
            logger.info("a socket closed: %s", why, extra={"code": self._connection.closing})
            await leave_control(self.channel_layer, conv_id, self.channel_name)

    def _give_up_place(self) -> None:
        """Out of counts, guard and pool. Idempotent."""
        counted, self._counted = self._counted, None
        if counted is not None:
            self._hub.limits.leave(*counted)
        if self._seat is not None:
            self._hub.guard.release(self._seat)
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.leave(self._connection)

    def _enter(self, owner: str) -> None:
        """Counts this socket among its owner's and its address's. Raises TooManySockets."""
        headers = dict(self.scope["headers"])
        address = client_address(
            (self.scope.get("client") or [None])[0],
            headers.get(b"x-forwarded-for", b"").decode("latin-1"),
            trusted_proxies=self._hub.settings.trusted_proxies,
        )
        self._hub.limits.enter(owner, address)
        self._counted = (owner, address)

    def _sit_down(self, owner: str, info: SessionInfo) -> None:
        """Has the guard look after this socket."""
        if self._session_key is None:
            return  # a session that is kept nowhere can't be read anew: a test client's
        self._seat = Seat(
            conv_id=info.conv_id,
            owner=owner,
            is_guest=owner != info.owner,
            session_key=self._session_key,
            connection=self._connection,
        )
        self._hub.guard.admit(self._seat)

    async def _deliver(self, follower: StreamFollower, cursor: Cursor | None, profile: str) -> None:
        try:
            code = await pump(
                self._connection,
                follower,
                self._send_text,
                cursor=cursor,
                profile=profile,
                write=writing(self.scope),
            )
            # A client that reads nothing holds its socket for longer, but no place.
            self._give_up_place()
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close(code)
        except Exception:  # each server has its own error for a client that is gone
            logger.debug("a socket ended while it was sent to", exc_info=True)

    def _send_text(self, text: str) -> Awaitable[None]:
        # The stubs want `bytes` too; ASGI wants exactly one of both.
        return self.base_send({"type": "websocket.send", "text": text})  # type: ignore[arg-type]

    def _read_request(self, conv_id: str) -> Cursor | None:
        if not is_conv_id(conv_id):
            raise BadConvId(
                f"conv_id {conv_id[:80]!r} is not an id; expected 1 to 128 of "
                "A-Z a-z 0-9 . _ : - that begin with a letter or digit"
            )
        cursor = self._asked.get("cursor")
        return None if cursor is None else Cursor.parse(cursor)

    async def _forbid(self, why: str) -> None:
        """Refuses the handshake with 403; only the log is told why."""
        logger.info("a socket was refused: %s", why)
        await self.close()

    async def _refuse(self, error: Exception) -> None:
        """Says in words why there will be no stream, and closes."""
        code = "bad_cursor" if isinstance(error, BadCursor) else getattr(error, "code", "")
        logger.info("a socket was refused: %s", code)
        data = {"code": code, "message": str(error)}
        await self.accept()
        await self._send_text(connection_frame("ws.error", self._asked.get("conv_id", ""), data))
        await self.close(_close_code(error))

    def _bad_frame(self, message: str) -> None:
        self._bad_frames += 1
        data = {"code": "bad_frame", "message": message}
        self._connection.reply(connection_frame("ws.error", self._conv_id, data))
        if self._bad_frames >= BAD_FRAMES:
            self._connection.close(CLOSE_BAD_REQUEST)


def _close_code(refusal: Exception) -> int:
    """Whether a client that was refused shall come back by itself: from 4500 on it shall not."""
    match refusal:
        case Draining():
            return CLOSE_RESTARTING
        case Unavailable():
            return CLOSE_TRY_LATER
        case TooManySockets(everybody=True):
            return CLOSE_TRY_LATER
        case TooManySockets():
            return CLOSE_TOO_MANY
        case _:
            return CLOSE_BAD_REQUEST
