"""Proves engines/merging.py: text that waits together is made one, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.inference.engines.merging import MOST_WAITING, merge_waiting, merged


def chunk(delta: dict[str, object] | None, reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    choices = [] if delta is None else [choice]
    said = {"id": "c", "created": 1, "model": "m", "choices": choices, **more}
    return f"data: {json.dumps(said)}\n\n".encode()


def said(events: bytes) -> list[dict[str, object]]:
    """What a client reads."""
    return [
        json.loads(event.removeprefix("data: "))
        for event in events.decode().split("\n\n")
        if event.startswith("data: {")
    ]


def text_of(events: bytes) -> str:
    texts = []
    for each in said(events):
        for choice in each["choices"]:  # type: ignore[attr-defined]
            texts.append(choice["delta"].get("content") or "")
    return "".join(texts)


TEXTS = st.text(min_size=1, max_size=8)


@given(texts=st.lists(TEXTS, min_size=1, max_size=30))
def test_neighbours_become_one_that_says_the_same(texts: list[str]):
    events = b"".join(chunk({"content": text}) for text in texts)
    assert len(said(merged(events))) == 1
    assert text_of(merged(events)) == "".join(texts)


KINDS = st.one_of(
    TEXTS.map(lambda text: chunk({"content": text})),
    TEXTS.map(lambda text: chunk({"role": "assistant", "content": text})),
    TEXTS.map(lambda text: chunk({"content": text}, obfuscation="x" * len(text))),
    TEXTS.map(lambda text: chunk({"reasoning_content": text, "content": text})),
    TEXTS.map(lambda text: chunk({"content": text}, usage={"completion_tokens": 1})),
    TEXTS.map(lambda text: chunk({"content": text}, "stop")),
    TEXTS.map(lambda text: chunk({"tool_calls": [{"function": {"arguments": text}}]})),
    TEXTS.map(lambda text: chunk({"reasoning_content": text})),
    st.sampled_from(
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({}, "stop"),
            chunk(None, usage={"completion_tokens": 3}),
            b": keep-alive\n\n",
            b"data: {this is not JSON\n\n",
            b"data: [DONE]\n\n",
        ]
    ),
)


@given(events=st.lists(KINDS, max_size=30))
def test_what_says_more_than_text_stays_as_it_was_and_where_it_was(events: list[bytes]):
    """Merged again one by one, both say the same: only padding may be lost."""

    def runs(all_of_it: bytes) -> list[object]:
        kept: list[object] = []
        for event in all_of_it.split(b"\n\n"):
            try:
                each = json.loads(event.removeprefix(b"data: "))
                choice = each["choices"][0]
                choice["delta"].pop("role", None)
                text = choice["delta"]["content"]
                is_text = list(choice["delta"]) == ["content"] and choice["finish_reason"] is None
            except (ValueError, KeyError, IndexError):
                kept.append(event)
                continue
            each.pop("obfuscation", None)
            if is_text and "usage" not in each:
                if kept and isinstance(kept[-1], list):
                    kept[-1].append(text)
                else:
                    kept.append([text])
            else:
                kept.append(each)
        return ["".join(each) if isinstance(each, list) else each for each in kept]

    whole = b"".join(events)
    assert runs(merged(whole)) == runs(whole)


class Pieces(httpx2.AsyncByteStream):
    """Sends `pieces`, then what `end` says."""

    def __init__(self, pieces: list[bytes], end: Exception | None = None) -> None:
        self.pieces = pieces
        self.end = end
        self.sent = 0
        self.open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.sent += 1
            yield piece
        if self.end is not None:
            raise self.end

    async def aclose(self) -> None:
        self.open = False


def response(stream: Pieces, kind: str = "text/event-stream") -> httpx2.Response:
    made = httpx2.Response(200, headers={"content-type": kind}, stream=stream)
    merge_waiting(made)
    return made


async def read(stream: Pieces) -> list[bytes]:
    return [piece async for piece in response(stream).aiter_raw()]


async def test_what_has_come_together_is_read_as_one_however_it_was_cut():
    events = b"".join(chunk({"content": f"{n} "}) for n in range(20)) + b"data: [DONE]\n\n"
    for size in (1, 7, 100, len(events)):
        cut = [events[at : at + size] for at in range(0, len(events), size)]
        got = b"".join(await read(Pieces(cut)))
        assert text_of(got) == "".join(f"{n} " for n in range(20))
        assert got.endswith(b"data: [DONE]\n\n")
        assert len(said(got)) == 1


async def test_lines_that_end_in_another_way_are_not_held_back():
    event = chunk({"content": "a"}).replace(b"\n", b"\r\n")

    class Slow(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield event
            await asyncio.Event().wait()

    reading = response(Slow([])).aiter_raw()
    async with asyncio.timeout(5):
        assert await anext(reading) == event
    await reading.aclose()


async def test_half_an_event_at_the_end_arrives_too():
    whole = chunk({"content": "a"}) + b"data: {"
    assert b"".join(await read(Pieces([whole]))) == whole


async def test_what_the_stream_raises_is_raised_after_what_came_before():
    reading = response(Pieces([chunk({"content": "a"})], httpx2.ReadError("gone"))).aiter_raw()
    assert text_of(await anext(reading)) == "a"
    with pytest.raises(httpx2.ReadError, match="gone"):
        await anext(reading)


async def test_a_provider_waits_for_who_does_not_read():
    event = chunk({"content": "x" * 1000, "n": 1})
    pieces = Pieces([event] * 2000)
    reading = response(pieces).aiter_raw()
    await anext(reading)
    for _ in range(10):
        await asyncio.sleep(0)
    assert pieces.sent * len(event) < 2 * MOST_WAITING + 2 * len(event)
    rest = b"".join([piece async for piece in reading])
    assert pieces.sent == 2000
    assert rest.endswith(event)


async def test_the_reader_ends_with_its_response():
    async def tasks() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks()]

    class Endless(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield chunk({"content": "a"})
            await asyncio.Event().wait()

    stream = Endless([])
    answer = response(stream)
    reading = answer.aiter_raw()
    await anext(reading)
    assert "provider-reader" in await tasks()
    await answer.aclose()
    assert "provider-reader" not in await tasks()
    assert not stream.open


async def test_what_is_no_stream_of_events_is_left_alone():
    stream = Pieces([b"{}"])
    assert response(stream, "application/json").stream is stream
