"""uvicorn's websocket, with a bound on what reading its frames takes from everybody else."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..wire import EXTENSION
from .fair_share import CLOSE_SECONDS, rest_after

CLOSE_NOT_UTF8 = 1007
READ_BYTES = 8 * 1024
"""Of what a client sent, read in one go: a thousand frames of the smallest size."""


class UvicornSocket(WebSocketsSansIOProtocol):
    """Rests after reading many frames, and waits less for a client that answers no close."""

    _resting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = CLOSE_SECONDS
        if hasattr(transport, "max_size"):  # asyncio's own transport; it reads 256 KiB
            transport.max_size = READ_BYTES

    def data_received(self, data: bytes) -> None:
        began = self.loop.time()
        super().data_received(data)
        rest = rest_after(self.loop.time() - began)
        if rest and not self._resting:
            self._resting = self.read_paused = True
            self.transport.pause_reading()
            self.loop.call_later(rest, self._read_on)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # uvicorn logs it with a traceback, as often as clients like
                self.conn.send_close(CLOSE_NOT_UTF8)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    async def run_asgi(self) -> None:
        self.scope["extensions"][EXTENSION] = {"write": self.write}
        await super().run_asgi()

    def write(self, messages: bytes) -> bool:
        """Puts whole messages on the wire. False where they would pile up, and at its end."""
        if self.close_sent or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.transport.write(messages)
        return True

    async def receive(self):  # type: ignore[no-untyped-def] # uvicorn's own, private type
        message = await self.queue.get()
        self._resume()
        return message

    async def send(self, message):  # type: ignore[no-untyped-def] # uvicorn's own, private type
        if message["type"] != "websocket.close":
            await super().send(message)
            return
        # A close waits until what was sent before is on its way, with some clients for ever.
        patience = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
        await super().send(message)
        patience.cancel()

    def _read_on(self) -> None:
        self._resting = False
        self._resume()

    def _resume(self) -> None:
        if self.read_paused and not self._resting and (self.close_sent or self.queue.empty()):
            self.read_paused = False
            self.transport.resume_reading()
