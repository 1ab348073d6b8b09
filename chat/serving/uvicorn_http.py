"""uvicorn's side of HTTP, with a bound on how long a client may take to say what it wants."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .fair_share import HEAD_SECONDS


class UvicornHttp(H11Protocol):
    """Hangs up on a client whose request's head is not whole in time, however it drips.

    uvicorn itself has a bound only on the silence between two requests.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_at_the_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look_at_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _look_at_the_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
