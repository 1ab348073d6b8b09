"""The client of the load generator: it counts frames by their headers and reads next to none.

It is written against bytes because a library's client would take more of the machine than the
servers that are measured.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import Mapping
from typing import Self

PONG_BYTES = 64 * 1024
CONNECT_SECONDS = 60.0

_STAMP = re.compile(rb"@(\d+) ")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_SEQ = re.compile(rb'"seq":(\d+)')
_TEXT, _CLOSE, _PING = 1, 8, 9


class Wire(asyncio.Protocol):
    """One websocket. `frames` counts the texts that arrived whole.

    Where it `acknowledges`, it says how far it has read as docs/protocol.md asks.
    """

    END = b'"inference.finished"'
    """What the last message of an answer holds."""
    DELTA = b'"llm.delta"'
    """What a message with a piece of it holds near its beginning."""

    def __init__(
        self, url: str, headers: Mapping[str, str] | None = None, *, acknowledges: bool = False
    ) -> None:
        host, _, path = url.removeprefix("http://").partition("/")
        self._request = _handshake(host, f"/{path}", headers or {})
        self._acknowledges = acknowledges
        self._host, _, port = host.partition(":")
        self._port = int(port)
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._open = False
        self._unanswered = 0
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._waits: list[tuple[int, asyncio.Future[float]]] = []
        self._end: asyncio.Future[float] | None = None
        self.frames = 0
        self.bytes = 0
        self.opened_at = 0.0
        self.first_at = 0.0
        self.latencies: list[float] | None = None
        """Seconds from each stamp in a delta to its arrival; None: none is looked for."""
        self.deltas = 0
        """Deltas among the frames, as far as stamps are looked for."""
        self.longest_gap = 0.0
        """Seconds between two of them at most."""
        self._last_delta = 0
        self.lost = False

    async def open(self) -> Self:
        """Returns once the server has accepted. Raises OSError where it does not."""
        await self._loop.create_connection(lambda: self, self._host, self._port)
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._opened
        return self

    def count(self, frames: int) -> asyncio.Future[float]:
        """The moment when so many frames more have arrived."""
        done: asyncio.Future[float] = self._loop.create_future()
        self._waits.append((self.frames + frames, done))
        return done

    def end(self) -> asyncio.Future[float]:
        """The moment when the running answer's last frame arrives."""
        self._end = self._loop.create_future()
        return self._end

    def send(self, text: str) -> None:
        payload = text.encode()
        size = len(payload)
        # Masked as a client must, with a mask of zeros: the payload stays as it is.
        head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self._write(head + bytes(4) + payload)

    def stop_reading(self) -> None:
        """From here on what the server sends piles up on its side."""
        if self._transport is not None:
            self._transport.pause_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        gone = ConnectionResetError(f"the server closed the socket after {self.frames} frames")
        for future in (self._opened, self._end, *(done for _, done in self._waits)):
            if future is not None and not future.done():
                future.set_exception(gone)
                future.exception()  # whoever waits is told; nobody has to wait

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        start = 0 if self._open else self._accepted(data)
        if not self._open:
            self._rest = data
            return
        before = self.frames
        place = self._take(data, start)
        if not before and self.frames:
            self.first_at = time.monotonic()
        self._rest = data[place:]
        if (
            self._end is not None
            and not self._end.done()
            and data.find(self.END, start, place) >= 0
        ):
            self._end.set_result(time.monotonic())
        while self._waits and self.frames >= self._waits[0][0]:
            _, done = self._waits.pop(0)
            if not done.done():
                done.set_result(time.monotonic())
        self._unanswered += place - start
        if self._acknowledges and self._unanswered >= PONG_BYTES:
            self._pong(data[:place])

    def _take(self, data: bytes, place: int) -> int:
        """Counts the whole messages in `data`; says where the first broken one begins."""
        size, latencies, before = len(data), self.latencies, place
        while size - place >= 2:
            length, head = data[place + 1] & 127, 2
            if length == 126:
                length, head = int.from_bytes(data[place + 2 : place + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[place + 2 : place + 10], "big"), 10
            end = place + head + length
            if end > size or size - place < head:
                break
            kind = data[place] & 15
            if kind == _TEXT:
                self.frames += 1
                if latencies is not None and data.find(self.DELTA, place, place + 100) >= 0:
                    now = time.monotonic_ns()
                    if self.deltas:
                        self.longest_gap = max(self.longest_gap, (now - self._last_delta) / 1e9)
                    self.deltas, self._last_delta = self.deltas + 1, now
                    for stamp in _STAMP.findall(data, place, end):
                        latencies.append((now - int(stamp)) / 1e9)
            elif kind == _PING:
                self._write(bytes([0x8A, 0x80 | length]) + bytes(4) + data[place + head : end])
            elif kind == _CLOSE:
                self.close()
            place = end
        self.bytes += place - before
        return place

    def _accepted(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if b" 101 " not in data[: data.find(b"\r\n")]:
            status = data[: data.find(b"\r\n")].decode("latin-1")
            self._opened.set_exception(ConnectionRefusedError(f"the handshake got {status}"))
            self.close()
            return 0
        self._open, self.opened_at = True, time.monotonic()
        if not self._opened.done():
            self._opened.set_result(None)
        return end + 4

    def _pong(self, data: bytes) -> None:
        self._unanswered = 0
        place = data.rfind(b'{"sem":true,"event":{"seq":')
        found = _SEQ.search(data, place) if place >= 0 else None
        if found is not None:
            self.send(f'{{"type":"ws.pong","seq":{found[1].decode()}}}')

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class Caller:
    """One kept connection that posts JSON. A library's client takes as long as our server."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._address = url.removeprefix("http://").partition("/")[0]
        self._headers = {"Host": self._address, "Content-Type": "application/json", **headers}

    async def open(self) -> Self:
        host, _, port = self._address.partition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        return self

    async def post(self, path: str, body: bytes) -> int:
        """The status of the answer, once that is whole."""
        headers = {**self._headers, "Content-Length": str(len(body))}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None, head
        await self._reader.readexactly(int(length[1]))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        self._writer.close()


def _handshake(host: str, path: str, headers: Mapping[str, str]) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"Origin: http://{host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
