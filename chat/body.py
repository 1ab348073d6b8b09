"""The bound on request bodies, in front of Django: what is too large is not even read."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 10


class _TooLarge(Exception):
    """The body went over the bound while it was read."""


class BodyLimit:
    """Answers 413 in the protocol's form to a body over `max_bytes`, declared or counted."""

    def __init__(self, application: Any, *, max_bytes: int) -> None:
        self._application = application
        self._max_bytes = max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await _drain(receive)
            await self._refuse(send)
            return
        read = 0

        async def bounded_receive() -> dict[str, Any]:
            nonlocal read
            message: dict[str, Any] = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise _TooLarge
            return message

        try:
            await self._application(scope, bounded_receive, send)
        except _TooLarge:
            await _drain(receive)
            await self._refuse(send)

    async def _refuse(self, send: Any) -> None:
        body = json.dumps(
            {
                "error": f"the body is larger than {self._max_bytes} bytes; shorten it",
                "code": "prompt_too_long",
            }
        ).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _drain(receive: Any) -> None:
    """Reads on and forgets, up to a bound: who sends before reading would miss the answer."""
    drained = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while drained <= DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
