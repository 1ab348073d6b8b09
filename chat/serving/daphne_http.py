"""Daphne's side of HTTP, with a bound on how long a client may take to say what it wants."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from .fair_share import HEAD_SECONDS


class DaphneHttp(HTTPChannel):
    """Hangs up on a client whose request's head is not whole in time, however it drips.

    Twisted itself has a bound only on silence, and each byte begins it anew.
    """

    _head_is_whole = False
    _late: Any = None

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        super().connectionMade()
        self._look_at_the_head()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        super().dataReceived(data)
        self._look_at_the_head()

    def allHeadersReceived(self) -> None:  # noqa: N802 - Twisted's name
        self._head_is_whole = True
        super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        self._head_is_whole = False
        super().allContentReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        self._stop_waiting()
        super().connectionLost(reason)

    def _look_at_the_head(self) -> None:
        if self._head_is_whole or self._handlingRequest:
            self._stop_waiting()
        elif self._late is None:
            self._late = self.callLater(HEAD_SECONDS, self.forceAbortClient)

    def _stop_waiting(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
