"""Following a conversation over whatever happens to the line: every frame once, or told why not."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from ..frames import Cursor
from .errors import Ended, Unreachable

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
STOP_FROM = 4500
"""Close codes from here on mean: do not come back."""

PONG_BYTES = 64 * 1024
BEHIND_SECONDS = 5.0
SILENCE_GRACE_SECONDS = 15.0
_HEARTBEAT_SECONDS = 25.0

_REASONS = {
    4501: "the account was signed out",
    4503: "the account may no longer read this conversation",
    4509: "the conversation has ended",
    4513: "the server did not understand this client",
    4529: "this account has too many sockets open",
}


class Socket(Protocol):
    """What is used of a websocket."""

    async def recv(self) -> str | bytes: ...
    async def send(self, message: str) -> None: ...


Connect: TypeAlias = Callable[[Cursor], AbstractAsyncContextManager[Socket]]


@dataclass(frozen=True, slots=True)
class Told:
    """The next frame of the conversation."""

    frame: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames after `seen` that cannot be had any more; `snapshot` stands for all up to its own."""

    seen: int
    snapshot: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.snapshot["data"].get("reason", ""))


@dataclass(frozen=True, slots=True)
class Lost:
    """The line was lost; it is tried again in so many seconds."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Back:
    """The line is there again, and nothing was missed."""


Happening: TypeAlias = Told | Gap | Lost | Back


class _Again(Exception):
    """Come back with the cursor; `str()` says why."""


async def follow(
    connect: Connect, cursor: Cursor, *, explain: Callable[[], Awaitable[object]]
) -> AsyncGenerator[Happening, None]:
    """Everything after the cursor, for ever. Raises Ended, or what `explain` raises.

    `explain` is asked why a handshake was refused: it raises what is final, returns otherwise, or
    raises Unreachable.
    """
    reader, losses = _Reader(cursor), 0
    while True:
        reason = "the stream ended"
        try:
            async with connect(reader.cursor) as socket:
                async for happening in reader.read(socket, after_loss=losses > 0):
                    losses = 0
                    yield happening
        except InvalidStatus as refusal:
            with suppress(Unreachable):
                await explain()
            reason = f"refused with {refusal.response.status_code}"
        except ConnectionClosed as closed:
            code = 1006 if closed.rcvd is None else closed.rcvd.code
            if code >= STOP_FROM:
                raise Ended(reader.error or _REASONS.get(code, f"closed with {code}")) from None
            reason = f"closed with {code}"
        except (_Again, InvalidHandshake, OSError) as lost:
            reason = str(lost) or type(lost).__name__
        seconds = random.uniform(0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**losses))  # noqa: S311 - jitter
        losses += 1
        yield Lost(reason, seconds)
        await asyncio.sleep(seconds)


class _Reader:
    """Holds the place in the conversation from one socket to the next."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.error = ""
        self._silence = _HEARTBEAT_SECONDS + SILENCE_GRACE_SECONDS
        self._behind = False
        self._unanswered = 0

    async def read(self, socket: Socket, *, after_loss: bool) -> AsyncIterator[Happening]:
        """What one socket brings, until it is closed, silent or out of step."""
        self._behind, self._unanswered = False, 0
        while True:
            event = await self._next(socket)
            match event:
                case {"type": "ws.hello", "data": data}:
                    self._silence = data["heartbeatMs"] / 1000 + SILENCE_GRACE_SECONDS
                    if after_loss and data["resumed"]:
                        yield Back()
                    self._behind = data["resumed"] and data["headSeq"] > self.cursor.seq
                case {"type": "timeline.snapshot", "data": data}:
                    gap = Gap(self.cursor.seq, event)
                    self.cursor = Cursor.parse(data["cursor"])
                    yield gap
                case {"type": "ws.ping", "data": data}:
                    await self._pong(socket)
                    self._behind = data["headSeq"] > self.cursor.seq
                case {"type": "ws.error", "data": data}:
                    self.error = str(data["message"])
                case {"seq": int(seq)} if seq > self.cursor.seq:
                    if seq != self.cursor.seq + 1:
                        raise _Again(f"frame {seq} came after {self.cursor.seq}")
                    self.cursor = Cursor(self.cursor.epoch, seq, event.get("stream_id"))
                    self._behind = False
                    yield Told(event)

    async def _next(self, socket: Socket) -> dict[str, Any]:
        seconds = BEHIND_SECONDS if self._behind else self._silence
        try:
            async with asyncio.timeout(seconds):
                message = await socket.recv()
        except TimeoutError:
            raise _Again(f"the server was silent for {seconds:g} s") from None
        self._unanswered += len(message)
        if self._unanswered >= PONG_BYTES:
            await self._pong(socket)
        event: dict[str, Any] = json.loads(message)["event"]
        return event

    async def _pong(self, socket: Socket) -> None:
        self._unanswered = 0
        await socket.send(json.dumps({"type": "ws.pong", "seq": self.cursor.seq}))
