"""Guard: sends away whoever may no longer be on a socket.

A socket is let in once, and then who is behind it may change: they sign out, their account is
closed, a permission is taken away. Django's signals say so at once, to every process
(`control.py`); that may be lost, so every socket is also checked each minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from sessions_app.access import Identity, Owned, can
from sessions_app.inference.errors import Unavailable

from .pool import CLOSE_NO_ACCESS, CLOSE_RESYNC, CLOSE_SIGNED_OUT, Connection

logger = logging.getLogger(__name__)

ACCESS_GROUP = "access"
"""The channel-layer group that the guard of every process is in."""


def digest(text: str) -> str:
    """What stands for an id or a key on a channel layer: legal in a group's name, and no secret."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seat:
    """A socket that was let in: as whom, into what, and by which of Django's sessions."""

    conv_id: str
    owner: str
    is_guest: bool  # let into somebody else's conversation, by a permission
    session_key: str
    connection: Connection

    @cached_property
    def session_digest(self) -> str:
        return digest(self.session_key)

    @cached_property
    def owner_digest(self) -> str:
        return digest(self.owner)


class Layer(Protocol):
    """What is used of a channel layer."""

    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...


class Guard:
    """Owns two tasks, from its first seat on: one hears what is announced, one checks.

    A check asks `identities` for many sessions at once. While that fails (no database), everybody
    stays. Belongs to one event loop.
    """

    RETRY_SECONDS = 5.0
    BATCH = 100  # sessions asked for at once: a thread is kept for some milliseconds

    def __init__(
        self,
        *,
        layer: Layer,
        identities: Callable[[Collection[str]], Awaitable[Mapping[str, Identity]]],
        find: Callable[[str], Awaitable[Owned | None]],
        every: float,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._layer = layer
        self._identities = identities
        self._find = find
        self._every = every
        self._seats: set[Seat] = set()
        self._due: set[Seat] = set()
        self._bell = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def admit(self, seat: Seat) -> None:
        """Checks the seat from here on, until it is released."""
        self._seats.add(seat)
        if not self._tasks:
            self.loop = asyncio.get_running_loop()
            self._tasks = (
                self.loop.create_task(self._listen(), name="guard-listener"),
                self.loop.create_task(self._check_for_ever(), name="guard"),
            )

    def release(self, seat: Seat) -> None:
        """Forgets the seat. Idempotent."""
        self._seats.discard(seat)
        self._due.discard(seat)

    async def aclose(self) -> None:
        """Ends both tasks. The seats stay as they are."""
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_on(await self._layer.new_channel())
            except Exception as error:  # noqa: BLE001 - each layer has its own errors
                logger.warning("the channel layer fails, the checks go on: %r", error)
                await asyncio.sleep(min(self._every, self.RETRY_SECONDS))

    async def _listen_on(self, channel: str) -> None:
        heard = asyncio.ensure_future(self._layer.receive(channel))
        try:
            while True:
                # Again and again, because a membership expires. What waits is not cancelled for it:
                # to some layers that means that nobody will ever listen on the channel again.
                await self._layer.group_add(ACCESS_GROUP, channel)
                await asyncio.wait({heard}, timeout=self._every)
                if heard.done():
                    self._hear(heard.result())
                    heard = asyncio.ensure_future(self._layer.receive(channel))
        finally:
            with suppress(Exception):
                await self._layer.group_discard(ACCESS_GROUP, channel)
            heard.cancel()
            await asyncio.wait({heard})

    def _hear(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"type": "access.ended", "session": session, "code": code}:
                for seat in self._seats:
                    if seat.session_digest == session:
                        seat.connection.close(code)
            case {"type": "access.changed", "owner": owner}:
                self._check_soon(seat for seat in self._seats if seat.owner_digest == owner)
            case {"type": "access.changed"}:
                self._check_soon(seat for seat in self._seats if seat.is_guest)

    def _check_soon(self, seats: Iterable[Seat]) -> None:
        self._due.update(seats)
        self._bell.set()

    async def _check_for_ever(self) -> None:
        assert self.loop is not None
        tick = self.loop.time() + self._every
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(tick):
                    await self._bell.wait()
            self._bell.clear()
            if self.loop.time() >= tick:
                tick = self.loop.time() + self._every
                self._due.update(self._seats)
            while self._due:
                batch = [self._due.pop() for _ in range(min(len(self._due), self.BATCH))]
                try:
                    await self._check(batch)
                except Exception:
                    logger.warning("who is behind a socket cannot be read now", exc_info=True)

    async def _check(self, seats: Collection[Seat]) -> None:
        identities = await self._identities({seat.session_key for seat in seats})
        for seat in seats:
            identity = identities.get(seat.session_key, Identity(None))
            code = verdict(seat, identity, await self._conversation(seat.conv_id))
            if code is not None:
                seat.connection.close(code)

    async def _conversation(self, conv_id: str) -> Owned | None:
        """None also where an app's store fails: the others of the batch are still checked."""
        try:
            return await self._find(conv_id)
        except Unavailable:
            return None
        except Exception:
            logger.warning("a conversation cannot be found now", exc_info=True)
            return None


def verdict(seat: Seat, identity: Identity, conversation: Owned | None) -> int | None:
    """The code to close the seat with, or None: it may stay. `identity` is its session's now."""
    if conversation is not None and not seat.is_guest and conversation.owner != seat.owner:
        return CLOSE_RESYNC  # its visitor signed in, and comes back as the account
    if identity.owner != seat.owner:
        return CLOSE_SIGNED_OUT
    if conversation is not None and not can(identity, "transcript", conversation):
        return CLOSE_NO_ACCESS
    return None
