"""Daphne's websocket, made to push back: by itself it reads all that comes, whoever waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import reactor

from ..wire import EXTENSION
from .fair_share import MOST_WAITING, TURN_SECONDS, rest_after

LOOK_SECONDS = 2.0
"""Between two looks at who is to be pinged, or has said nothing for too long."""
LOOKED_AFTER_AT_ONCE = 50
"""Connections before others have their turn: pings to so many take some 2 ms."""


class DaphneSocket(WebSocketProtocol):  # type: ignore[misc] # Daphne ships no types
    """Reads no frames while the application has not taken those before, and rests after many."""

    CONFIG_ATTRS = ()  # see connectionMade
    maxMessagePayloadSize: int  # noqa: N815 - autobahn's name
    _began = 0.0
    _resting = False

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        # autobahn's own way words each option for a debug log as well: a fifth of a handshake.
        for name in WebSocketProtocol.CONFIG_ATTRS:
            setattr(self, name, getattr(self.factory, name))
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        self._began = time.monotonic()
        super().dataReceived(data)

    def processData(self) -> bool:  # noqa: N802 - autobahn's: reads a frame, says whether to go on
        if self._resting:
            return False
        spent = time.monotonic() - self._began
        if spent >= TURN_SECONDS or self._must_wait(MOST_WAITING):
            self._rest(max(TURN_SECONDS, spent))
            return False
        return bool(super().processData())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803 - autobahn's
        if self.state == self.STATE_OPEN:  # what comes after our close is for nobody
            super().onMessage(payload, isBinary)

    def serverClose(self, code: int | None = None) -> None:  # noqa: N802 - Daphne's name
        # Its own way refuses the codes of the standard, 1012 among them.
        self.sendCloseFrame(code=1000 if code is None else code, isReply=False)

    def sendData(  # noqa: N802 - autobahn's name
        self, data: bytes, sync: bool = False, chopsize: int | None = None
    ) -> None:
        # Its own way words a line for a debug log of every write, whether one is kept or not; and
        # what goes out later waits for all that is done until then.
        if sync or chopsize or self.send_queue:
            super().sendData(data, sync, chopsize)
        else:
            _put(self.transport, data)

    def sendMessage(self, *message: Any, **options: Any) -> None:  # noqa: N802 - autobahn's
        # The bound is on what clients send; autobahn would refuse our larger frames as well.
        bound, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(*message, **options)
        finally:
            self.maxMessagePayloadSize = bound

    def write(self, messages: bytes) -> bool:
        """Puts whole messages on the wire. False at its end; how much waits is for us to bound."""
        if self.state != self.STATE_OPEN or self.send_queue or not self.transport.connected:
            return False
        _put(self.transport, messages)
        return True

    def _must_wait(self, most: int) -> bool:
        is_open: bool = self.state == self.STATE_OPEN
        return is_open and self.application_queue.qsize() >= most

    def _rest(self, spent: float) -> None:
        self._resting = True
        self.transport.pauseProducing()
        reactor.callLater(rest_after(spent), self._read_on)  # type: ignore[arg-type] # zope knows no self

    def _read_on(self) -> None:
        if self._must_wait(1):
            self._rest(TURN_SECONDS)
            return
        self._resting = False
        self._began = time.monotonic()
        self.transport.resumeProducing()
        self.consumeData()


def _put(transport: Any, data: bytes) -> None:
    """Hands bytes to the system at once, where Twisted would wait to be asked for them."""
    if _is_clear(transport):
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, int):  # else the connection is lost; Twisted will find out
            data = data[sent:]
    transport.write(data)


def _is_clear(transport: Any) -> bool:
    """Whether nothing waits that must go out before."""
    return not getattr(transport, "TLS", True) and not (
        transport.dataBuffer
        or transport._tempDataBuffer
        or transport.disconnecting
        or not transport.connected
    )


class DaphneServer(Server):  # type: ignore[misc] # Daphne ships no types
    """Tells the application what its sockets can do, and looks after them a few at a time.

    `max_body` is what the application takes of a body.
    """

    max_body: int

    def timeout_checker(self) -> None:
        # Its own way looks after all of them in one go, and pings a crowd that came together so.
        self._look_after(iter(tuple(self.connections)))

    def _look_after(self, connections: Iterator[Any]) -> None:
        some = tuple(islice(connections, LOOKED_AFTER_AT_ONCE))
        for connection in some:
            if connection in self.connections:
                connection.check_timeouts()
        if some:
            reactor.callLater(0, self._look_after, connections)  # type: ignore[arg-type] # zope knows no self
        else:
            reactor.callLater(LOOK_SECONDS, self.timeout_checker)  # type: ignore[arg-type] # as above

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        if isinstance(protocol, DaphneSocket):
            scope["extensions"] = {EXTENSION: {"write": protocol.write}}
        return super().create_application(protocol, scope)
