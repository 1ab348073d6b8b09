"""SessionManager: finds, opens and ends sessions. Answers `chat.ports.Sessions`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .inference.engine import Closing
from .inference.errors import ConversationNotFound, Draining
from .inference.events import EventSink
from .profiles import Profiles
from .session import EngineBuilder, Session
from .values import ProfileInfo, SessionInfo, Started


class SessionManager:
    """Owns every session of the process. Belongs to one event loop."""

    def __init__(
        self,
        *,
        profiles: Profiles,
        builder: EngineBuilder,
        sink_for: Callable[[str], EventSink],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._profiles = profiles
        self._builder = builder
        self._sink_for = sink_for
        self._now_ms = now_ms
        self._sessions: dict[str, Session] = {}
        self._closing = False

    def profiles(self) -> tuple[ProfileInfo, ...]:
        return self._profiles.infos()

    async def find(self, conv_id: str) -> SessionInfo | None:
        session = self._sessions.get(conv_id)
        return None if session is None else session.info()

    async def open(self, conv_id: str, *, owner: str, profile: str | None) -> SessionInfo:
        chosen = self._profiles.get(profile)
        session = self._sessions.get(conv_id)
        if session is None:
            self._refuse_when_closing()
            session = self._sessions[conv_id] = Session(
                conv_id,
                owner=owner,
                profile=chosen,
                builder=self._builder,
                sink=self._sink_for(conv_id),
                now_ms=self._now_ms,
            )
        return session.info()

    async def owned_by(self, owner: str) -> tuple[SessionInfo, ...]:
        infos = (session.info() for session in self._sessions.values() if session.owner == owner)
        return tuple(sorted(infos, key=lambda info: info.last_activity_ms, reverse=True))

    async def submit(
        self, conv_id: str, *, prompt: str, profile: str | None, idempotency_key: str
    ) -> Started:
        self._refuse_when_closing()
        session = self._session(conv_id)
        chosen = None if profile is None else self._profiles.get(profile)
        handle = session.submit(prompt, key=idempotency_key, profile=chosen)
        await session.flush()
        return Started(
            conv_id=conv_id,
            inference_id=handle.inference_id,
            turn_id=handle.turn_id,
            idempotency_key=idempotency_key,
        )

    async def cancel(self, conv_id: str, *, inference_id: str | None = None) -> str:
        return await self._session(conv_id).cancel(inference_id)

    async def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        moved = tuple(s for s in self._sessions.values() if s.owner == old_owner)
        for session in moved:
            session.owner = new_owner
        return tuple(session.id for session in moved)

    async def aclose(self, reason: str = "server restarting") -> None:
        """Takes no more prompts, ends every inference as cancelled, and waits for their ends."""
        self._closing = True
        handles = [s.active for s in self._sessions.values() if s.active is not None]
        for handle in handles:
            handle.cancel(reason)
        await asyncio.gather(*(handle.wait() for handle in handles), return_exceptions=True)
        if isinstance(self._builder, Closing):
            await self._builder.aclose()

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise Draining("the server is restarting; try again in a few seconds")

    def _session(self, conv_id: str) -> Session:
        try:
            return self._sessions[conv_id]
        except KeyError:
            raise ConversationNotFound("there is no such conversation") from None
