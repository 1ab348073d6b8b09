"""Daphne's side of HTTP, with a bound on how long a client may take to say what it wants."""

from __future__ import annotations

from typing import Any

from daphne.http_protocol import WebRequest
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel

from ..body import BODY_SECONDS, DRAIN_BYTES, Refusal, too_large, too_slow
from .fair_share import CLOSE_SECONDS, HEAD_SECONDS


class DaphneRequest(WebRequest):  # type: ignore[misc] # Daphne ships no types
    """Keeps of a body no more than shows that it is too large.

    Daphne asks the application only once it has the whole of it.
    """

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        super().handleContentChunk(data[: self.server.max_body + 1 - self.content.tell()])


class DaphneHttp(HTTPChannel):
    """Hangs up on a client whose request is not whole in time, however it drips, or goes on and on.

    Twisted itself has a bound only on silence, and each byte begins it anew.
    """

    _head_is_whole = False
    _late: Any = None
    _body_bytes = 0

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        if self.requestFactory is WebRequest:  # Daphne names it in each that it builds
            self.requestFactory = DaphneRequest
        super().connectionMade()
        self._look_at_the_head()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        super().dataReceived(data)
        self._look_at_the_head()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        super().rawDataReceived(data)
        if self._head_is_whole:
            self._body_bytes += len(data)
            if self._body_bytes > DRAIN_BYTES:
                self._refuse(too_large(self.factory.server.max_body))

    def allHeadersReceived(self) -> None:  # noqa: N802 - Twisted's name
        self._head_is_whole = True
        self._stop_waiting()
        self._late = self.callLater(BODY_SECONDS, lambda: self._refuse(too_slow()))
        super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        self._head_is_whole = False
        self._body_bytes = 0
        self._stop_waiting()
        super().allContentReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        self._stop_waiting()
        super().connectionLost(reason)

    def _look_at_the_head(self) -> None:
        if self._head_is_whole:
            return
        if self._handlingRequest:
            self._stop_waiting()
        elif self._late is None:
            self._late = self.callLater(HEAD_SECONDS, self.forceAbortClient)

    def _stop_waiting(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    def _refuse(self, refusal: Refusal) -> None:
        self._stop_waiting()
        self._late = self.callLater(CLOSE_SECONDS, self.forceAbortClient)
        status = f"HTTP/1.1 {refusal.status} ".encode() + RESPONSES[refusal.status]
        head = [status, *(b": ".join(header) for header in refusal.headers)]
        self.write(b"\r\n".join([*head, b"", b""]) + refusal.body)
        self.loseConnection()
