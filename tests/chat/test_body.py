"""Proves chat/body.py: a request body over the bound is refused, declared or counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from chat.body import BODY_SECONDS, BodyLimit

LIMIT = 100


class Reader:
    """An application that reads its whole body and answers with the size."""

    def __init__(self) -> None:
        self.called = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.called = True
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})


async def ask(reader: Reader, *chunks: bytes, length: str | None = None) -> tuple[int, bytes, int]:
    """Status, body, and how many chunks were read."""
    sent: list[dict[str, Any]] = []
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, start=1)
    ]
    headers = [(b"host", b"x")]
    if length is not None:
        headers.append((b"content-length", length.encode()))

    async def receive() -> dict[str, Any]:
        if not chunks:
            return {"type": "http.disconnect"}
        assert waiting, "after the whole body a server says nothing while its client waits"
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await BodyLimit(reader, max_bytes=LIMIT)({"type": "http", "headers": headers}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"], len(chunks) - len(waiting)


@pytest.mark.parametrize(
    "chunks", [(b"",), (b"x" * LIMIT,), (b"x",) * LIMIT, (b"x" * 99, b"", b"x", b"")]
)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_up_to_the_bound_passes(chunks: tuple[bytes, ...], declared: bool):
    size = sum(map(len, chunks))
    status, body, _ = await ask(Reader(), *chunks, length=str(size) if declared else None)

    assert (status, body) == (200, str(size).encode())


@pytest.mark.parametrize("length", ["101", "00101", "1" + "0" * 30])
async def test_a_body_declared_over_the_bound_reaches_nobody(length: str):
    reader = Reader()
    status, body, _ = await ask(reader, b"x" * 101, length=length)

    assert status == 413
    assert not reader.called
    assert_error(body)


@pytest.mark.parametrize("length", [None, "5"])
@pytest.mark.parametrize("chunks", [(b"x" * 101,), (b"x" * 100, b"x"), (b"x" * 60,) * 50])
async def test_a_body_that_grows_over_the_bound_is_cut_off(
    chunks: tuple[bytes, ...], length: str | None
):
    status, body, _ = await ask(Reader(), *chunks, length=length)

    assert status == 413
    assert_error(body)


@pytest.mark.virtual
async def test_one_that_is_too_large_by_its_last_byte_is_answered_at_once():
    sent: list[dict[str, Any]] = []
    coming = iter([{"type": "http.request", "body": b"x" * (LIMIT + 1), "more_body": False}])

    async def receive() -> dict[str, Any]:
        """As a server's: it waits for what the client may still do."""
        for message in coming:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    clock = asyncio.get_running_loop()
    began = clock.time()
    await BodyLimit(Reader(), max_bytes=LIMIT)({"type": "http", "headers": []}, receive, send)
    assert sent[0]["status"] == 413
    assert clock.time() == began


async def test_a_client_that_leaves_is_no_error():
    class Leaver(Reader):
        async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.disconnect"
            self.called = True
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    leaver = Leaver()
    await ask(leaver)

    assert leaver.called


def assert_error(body: bytes) -> None:
    told = json.loads(body)
    assert set(told) == {"error", "code"}
    assert told["code"] == "prompt_too_long"
    assert "100 bytes" in told["error"]


class Dripping:
    """A client that sends a byte of its body now and then, and a server's answer to it."""

    def __init__(self, number: int, *, every: float) -> None:
        self.left, self.every = number, every
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self.every)
        self.left -= 1
        return {"type": "http.request", "body": b"x", "more_body": self.left > 0}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def ask(self, application: Any) -> int:
        limit = BodyLimit(application, max_bytes=LIMIT)
        await limit({"type": "http", "headers": []}, self.receive, self.send)
        status: int = self.sent[0]["status"]
        return status


@pytest.mark.virtual
async def test_a_body_that_is_not_whole_in_time_is_answered_however_it_drips():
    late = Dripping(50, every=1)

    assert await late.ask(Reader()) == 408
    assert json.loads(late.sent[1]["body"])["code"] == "bad_request"
    assert (b"connection", b"close") in late.sent[0]["headers"]


@pytest.mark.virtual
async def test_who_is_asked_may_take_its_time_once_the_body_is_whole():
    class Listening(Reader):
        """Waits for the client to go, as Django does while a view runs."""

        async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)
            await receive()

    asked = Dripping(1, every=BODY_SECONDS * 0.9)
    assert await asked.ask(Listening()) == 200
    assert len(asked.sent) == 2
