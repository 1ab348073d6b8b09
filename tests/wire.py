"""A websocket by hand: for clients that do what no library would."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
RECEIVE_BUFFER = 4096
"""Bytes the system keeps for a client that reads little: the server feels it at once."""


def frame(
    payload: bytes = b"",
    *,
    opcode: int = TEXT,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    claims: int | None = None,
) -> bytes:
    """A client's frame, its mask all zeros. `claims`: the length its header tells."""
    size = len(payload) if claims is None else claims
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask | size])
    elif size < 1 << 16:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


def handshake(url: str, headers: Mapping[str, str], **changed: str | None) -> bytes:
    """The request that opens a socket, with some of its headers other, or left out (None)."""
    parts = urlsplit(url)
    named: dict[str, str | None] = {
        "Host": parts.netloc,
        "Origin": f"http://{parts.netloc}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **headers,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"GET {parts.path}?{parts.query} HTTP/1.1", *lines, "", ""]).encode()


class Wire:
    """One connection. It reads no more than somebody asks for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError once the server has gone."""
        self.writer.write(data)
        await self.writer.drain()

    async def message(self) -> tuple[int, bytes]:
        """The opcode and payload of the server's next frame."""
        head = await self.reader.readexactly(2)
        size = head[1] & 127
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return head[0] & 15, await self.reader.readexactly(size)

    async def close_code(self) -> int | None:
        """Reads on until the server closes; None where it went without a word."""
        try:
            while True:
                opcode, payload = await self.message()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (ConnectionError, asyncio.IncompleteReadError):
            return None

    def drop(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """A connection on which nothing was said."""
    parts = urlsplit(url)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    plain.setblocking(False)
    assert parts.hostname is not None
    try:
        await asyncio.get_running_loop().sock_connect(plain, (parts.hostname, parts.port))
    except BaseException:
        plain.close()
        raise
    reader, writer = await asyncio.open_connection(sock=plain, limit=RECEIVE_BUFFER)
    wire = Wire(reader, writer)
    try:
        yield wire
    finally:
        wire.drop()


@asynccontextmanager
async def opened(url: str, headers: Mapping[str, str]) -> AsyncIterator[Wire]:
    """An open websocket that was sent its greeting and has read none of it."""
    async with connected(url) as wire:
        await wire.send(handshake(url, headers))
        answer = await wire.reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in answer, answer
        yield wire
