"""Listing: the sessions of all processes, as operators see them.

Each process says what it has and had a while ago; one that somebody only watches is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from cluster.presence import Presence

from .manager import SessionManager
from .record import SessionRecord
from .values import Idle, LiveSession, Unloaded

logger = logging.getLogger(__name__)

TOPIC = "sessions"
TOLD_MOST = 10_000
RECENT_MOST = 1000
RECENT_SECONDS = 300
"""Who lists sessions sees idle ones for that long, as in one process."""

_live_decoder = msgspec.json.Decoder(list[LiveSession])


class Listing:
    """Tells the other processes of this one's sessions. `record` reads one that nobody told of."""

    manager: SessionManager
    _watched: Callable[[], Awaitable[Collection[str]]]

    def __init__(
        self,
        presence: Presence,
        *,
        record: Callable[[str], Awaitable[SessionRecord | None]],
        now_ms: Callable[[], int],
    ) -> None:
        self._presence = presence
        self._record = record
        self._now_ms = now_ms
        self._recent: OrderedDict[str, LiveSession] = OrderedDict()
        presence.tell(TOPIC, self._tell)

    def bind(
        self, manager: SessionManager, *, watched: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """Says who has this process's sessions, and which somebody follows at any process."""
        self.manager = manager
        self._watched = watched

    def note(self, session: LiveSession) -> None:
        """What an idle session was when it was here last."""
        known = self._recent.get(session.conv_id)
        if known is not None and known.state.since_ms > session.state.since_ms:
            return  # evicted since it was last used
        self._recent[session.conv_id] = session
        self._recent.move_to_end(session.conv_id)
        while len(self._recent) > RECENT_MOST:
            self._recent.popitem(last=False)

    async def live(self) -> tuple[LiveSession, ...]:
        """Those that run anywhere, that somebody watches, and that were active a while ago.

        Raises RedisError.
        """
        latest: dict[str, LiveSession] = {}
        for session in (*await self._live_here(), *await self._live_elsewhere()):
            known = latest.get(session.conv_id)
            if known is None or known.state.since_ms < session.state.since_ms:
                latest[session.conv_id] = session
        watched = set(await self._watched())
        unknown = [conv_id for conv_id in watched if conv_id not in latest][:RECENT_MOST]
        for record in await asyncio.gather(*(self._record(conv_id) for conv_id in unknown)):
            if record is not None:
                latest[record.conv_id] = self.manager.idle(record)
        since_ms = self._now_ms() - RECENT_SECONDS * 1000
        return tuple(
            session
            for session in latest.values()
            if not isinstance(session.state, Unloaded)
            and (
                not isinstance(session.state, Idle)
                or session.last_activity_ms >= since_ms
                or session.conv_id in watched
            )
        )

    async def _live_here(self) -> Sequence[LiveSession]:
        return (*self._recent.values(), *await self.manager.live())

    async def _live_elsewhere(self) -> Sequence[LiveSession]:
        found: list[LiveSession] = []
        for said in await self._presence.others(TOPIC):
            try:
                found += _live_decoder.decode(said)
            except msgspec.MsgspecError as error:
                logger.debug("another process cannot be understood: %s", error)
        return found

    async def _tell(self) -> bytes:
        since_ms = self._now_ms() - RECENT_SECONDS * 1000
        for conv_id, session in tuple(self._recent.items()):
            if session.last_activity_ms < since_ms:
                del self._recent[conv_id]
        return msgspec.json.encode((await self._live_here())[-TOLD_MOST:])
