"""The HTTP below the stand-ins: requests in, hand-made responses out, and who hung up when.

Written by hand because a web framework would not let us break a chunked body in mid-stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

PATIENCE = 20.0
"""Seconds a test waits for something that takes milliseconds."""


@dataclass(eq=False)
class Exchange:
    """A request, and what became of its answer."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, object]
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closes the connection before the answer's end."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the whole answer is sent."""


class Reply:
    """Writes one response. A stand-in that returns without `end` cuts the connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.ended = False

    async def json(self, status: int, content: object, **headers: str) -> None:
        await self.whole(status, json.dumps(content), "application/json", **headers)

    async def whole(self, status: int, content: str, kind: str, **headers: str) -> None:
        data = content.encode()
        self._head(status, kind, {"content-length": str(len(data)), **headers})
        self._writer.write(data)
        await self._writer.drain()
        self.ended = True

    async def begin(self) -> None:
        self._head(200, "text/event-stream", {"transfer-encoding": "chunked"})
        await self._writer.drain()

    async def send(self, text: str) -> None:
        data = text.encode()
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def data(self, content: object, event: str | None = None) -> None:
        """One server-sent event with JSON in it."""
        named = f"event: {event}\n" if event else ""
        await self.send(f"{named}data: {json.dumps(content)}\n\n")

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        self.ended = True

    def _head(self, status: int, kind: str, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Said So", f"content-type: {kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())


Answer: TypeAlias = Callable[[Exchange, Reply], Awaitable[None]]


class StandIn:
    """An HTTP server on loopback. `async with` starts and stops it; `exchanges` is what it saw."""

    def __init__(self, answer: Answer, *, port: int = 0) -> None:
        self.exchanges: list[Exchange] = []
        self.port = port
        self._answer = answer
        self._connections: set[asyncio.Task[None]] = set()
        self._count = 0
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> StandIn:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def exchange(self, number: int = 1) -> Exchange:
        """The `number`th request, as soon as it is there."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: len(self.exchanges) >= number)
        return self.exchanges[number - 1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        serving = self._serve(self._count, reader, writer)
        task = asyncio.create_task(serving, name=f"stand-in:{self._count}")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Between a request and its answer, the client sends nothing: a byte that comes is the
        # next request's first, and the end of the stream means that it hung up.
        ahead = asyncio.create_task(_next_byte(reader))
        answer: asyncio.Future[None] | None = None
        try:
            while first := await ahead:
                exchange = await _read(number, first, reader)
                self.exchanges.append(exchange)
                async with self._arrived:
                    self._arrived.notify_all()
                ahead = asyncio.create_task(_next_byte(reader))
                reply = Reply(writer)
                answer = asyncio.ensure_future(self._answer(exchange, reply))
                await asyncio.wait({ahead, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    exchange.abandoned.set()
                    return
                answer.result()
                if not reply.ended:
                    return
                exchange.answered.set()
        finally:
            ahead.cancel()
            if answer is not None:
                answer.cancel()
            writer.transport.abort()


async def _next_byte(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""


async def _read(number: int, first: bytes, reader: asyncio.StreamReader) -> Exchange:
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
    request, *lines = head.strip().split("\r\n")
    method, path, _ = request.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Exchange(
        connection=number,
        method=method,
        path=path,
        headers=headers,
        body=json.loads(content) if content else {},
    )
