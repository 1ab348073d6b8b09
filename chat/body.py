"""The bound on request bodies, in front of Django: what is too large is not even read."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, NamedTuple

DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 10
BODY_SECONDS = 30
"""For a whole body, however it drips: somebody waits for it with what it needs."""


class _TooLarge(Exception):
    """The body went over the bound while it was read."""


class _TooSlow(Exception):
    """The body was not whole in time."""


class BodyLimit:
    """Answers 413 in the protocol's form to a body over `max_bytes`, declared or counted.

    And 408 to one that is not whole within `BODY_SECONDS`.
    """

    def __init__(self, application: Any, *, max_bytes: int) -> None:
        self._application = application
        self._max_bytes = max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await _drain(receive)
            await _answer(send, too_large(self._max_bytes))
            return
        read, whole = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def bounded_receive() -> dict[str, Any]:
            nonlocal read, whole
            try:
                async with asyncio.timeout_at(None if whole else deadline):
                    message: dict[str, Any] = await receive()
            except TimeoutError:
                raise _TooSlow from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self._max_bytes:
                raise _TooLarge
            return message

        try:
            await self._application(scope, bounded_receive, send)
        except _TooLarge:
            if not whole:  # after the last piece comes nothing any more
                await _drain(receive)
            await _answer(send, too_large(self._max_bytes))
        except _TooSlow:
            await _answer(send, too_slow())


class Refusal(NamedTuple):
    """The answer to a body that is not taken, after which its connection is closed."""

    status: int
    body: bytes

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            (b"connection", b"close"),
        ]


def too_large(max_bytes: int) -> Refusal:
    error = f"the body is larger than {max_bytes} bytes; shorten it"
    return Refusal(413, _said(error, "prompt_too_long"))


def too_slow() -> Refusal:
    error = f"the body did not come within {BODY_SECONDS} seconds; send it again"
    return Refusal(408, _said(error, "bad_request"))


def _said(error: str, code: str) -> bytes:
    return json.dumps({"error": error, "code": code}).encode()


async def _answer(send: Any, refusal: Refusal) -> None:
    start = {"status": refusal.status, "headers": refusal.headers}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": refusal.body})


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
