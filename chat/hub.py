"""Hub: what the transport's edges (views, pages, consumers) work with."""

from __future__ import annotations

from .conf import ChatSettings
from .ports import Sessions
from .streams import Streams


class Hub:
    """The process's sessions, streams and settings. Belongs to one event loop."""

    def __init__(self, *, sessions: Sessions, streams: Streams, settings: ChatSettings) -> None:
        self.sessions = sessions
        self.streams = streams
        self.settings = settings
        self.draining = False

    async def aclose(self) -> None:
        """Ends every inference as cancelled, then every stream task. Idempotent."""
        self.draining = True
        await self.sessions.aclose()
        await self.streams.aclose()
