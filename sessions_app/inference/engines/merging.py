"""Pieces of text that wait together in a provider's stream, made one before anybody reads them.

What the libraries do for one event takes as long as a hundred frames on a socket, and two events
that have come together say no more than one. So under load a stream costs less, and idle it is as
fast as ever: nothing waits for what has not come.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import httpx2

MOST_WAITING = 256 * 1024
"""Bytes that are read ahead of the library; then the provider has to wait."""

_TEXT = re.compile(
    rb'"delta": ?\{(?:"role": ?"assistant", ?)?"content": ?"((?:[^"\\]|\\.)+)"\}', re.DOTALL
)
_GOES_ON = re.compile(rb'"finish_reason": ?null')
_PADDING = re.compile(rb', ?"obfuscation": ?"[^"]*"')


def merge_waiting(response: httpx2.Response) -> None:
    """Has the response's events come merged, where they are OpenAI's and in plain bytes."""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream") and "content-encoding" not in response.headers:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Merged(response.stream)


class _Merged(httpx2.AsyncByteStream):
    """Reads ahead in a task of its own, which ends with the iteration or by `aclose`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._reader = asyncio.create_task(self._read(), name="provider-reader")
        self._reader.add_done_callback(lambda reader: self._arrived.set())
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                ended = self._reader.done()
                if whole := self._ready(ended=ended):
                    events = bytes(self._waiting[:whole])
                    del self._waiting[:whole]
                    self._taken.set()
                    yield merged(events)
                if ended:
                    self._reader.result()
                    return
        finally:
            await self._end()

    async def aclose(self) -> None:
        await self._end()
        await self._stream.aclose()

    async def _read(self) -> None:
        async for piece in self._stream:
            self._waiting += piece
            self._arrived.set()
            while len(self._waiting) > MOST_WAITING:
                self._taken.clear()
                await self._taken.wait()

    def _ready(self, *, ended: bool) -> int:
        """How much may be read now: whole events, or whatever there is where none can be told."""
        if ended or b"\r" in self._waiting or len(self._waiting) > MOST_WAITING:
            return len(self._waiting)
        end = self._waiting.rfind(b"\n\n")
        return 0 if end < 0 else end + 2

    async def _end(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.cancel()
            await asyncio.wait({reader})


def merged(events: bytes) -> bytes:
    """Whole events, in which neighbours that differ in their text alone have become one."""
    return b"\n\n".join(_merged(events.split(b"\n\n")))


def _merged(events: list[bytes]) -> Iterator[bytes]:
    around: tuple[bytes, bytes] = b"", b""
    texts: list[bytes] = []
    for event in events:
        found = _TEXT.search(event)
        if found is not None and texts and _around(event, found) == around:
            texts.append(found[1])
            continue
        if texts:
            yield b"".join(texts).join(around)
            texts = []
        if found is not None and _says_only_text(event[found.end(1) :]):
            around, texts = _around(event, found), [found[1]]
        else:
            yield event
    if texts:
        yield b"".join(texts).join(around)


def _around(event: bytes, text: re.Match[bytes]) -> tuple[bytes, bytes]:
    return event[: text.start(1)], _PADDING.sub(b"", event[text.end(1) :])


def _says_only_text(after: bytes) -> bool:
    """Whether what follows the text holds no more of the answer: no end, usage or second choice."""
    return b"{" not in after and _GOES_ON.search(after) is not None
