"""Proves chat/remote/tail.py: every frame once and in order, or told why not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from chat.frames import Cursor
from chat.remote.errors import Ended, NotThere, Unreachable
from chat.remote.tail import Back, Gap, Happening, Lost, Told, follow

pytestmark = pytest.mark.virtual

Step: TypeAlias = dict[str, Any] | Exception | float

EPOCH = 7


def hello(head_seq: int, *, resumed: bool = True) -> Step:
    data = {"headSeq": head_seq, "resumed": resumed, "heartbeatMs": 25_000}
    return {"type": "ws.hello", "data": data}


def frame(seq: int) -> Step:
    return {"type": "log", "id": f"f{seq}", "seq": seq, "data": {}}


def ping(head_seq: int) -> Step:
    return {"type": "ws.ping", "data": {"headSeq": head_seq}}


def snapshot(version: int, reason: str = "window", epoch: int = EPOCH) -> Step:
    data = {"cursor": f"{epoch}.{version}", "version": version, "reason": reason, "entities": []}
    return {"type": "timeline.snapshot", "data": data}


def closed(code: int) -> Step:
    return ConnectionClosedError(Close(code, ""), None)


def refused(status: int) -> Step:
    return InvalidStatus(Response(status, "", Headers()))


class Line:
    """A server whose sockets bring what the script says; then they are silent."""

    def __init__(self, *sockets: Sequence[Step]) -> None:
        self._sockets = iter(sockets)
        self.cursors: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self._steps: Iterator[Step] = iter(())

    @asynccontextmanager
    async def connect(self, cursor: Cursor) -> AsyncIterator[Line]:
        self.cursors.append(str(cursor))
        steps = list(next(self._sockets, [OSError("nobody is there")]))
        if steps and isinstance(steps[0], InvalidStatus | OSError):
            raise steps[0]
        self._steps = iter(steps)
        yield self

    async def recv(self) -> str:
        for step in self._steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            if isinstance(step, Exception):
                raise step
            return json.dumps({"sem": True, "event": step})
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: str) -> None:
        self.sent.append(json.loads(message))


async def nothing_is_wrong() -> None:
    pass


async def heard(line: Line, count: int, *, explain: Any = nothing_is_wrong) -> list[Happening]:
    """The first so many happenings, from frame 3 on."""
    seen: list[Happening] = []
    async with aclosing(follow(line.connect, Cursor(EPOCH, 3), explain=explain)) as happenings:
        async for happening in happenings:
            seen.append(happening)
            if len(seen) == count:
                break
    return seen


def seqs(happenings: Sequence[Happening]) -> list[int]:
    return [told.frame["seq"] for told in happenings if isinstance(told, Told)]


async def test_it_begins_after_the_cursor_and_tells_each_frame():
    line = Line([hello(5), frame(4), frame(5)])

    assert seqs(await heard(line, 2)) == [4, 5]
    assert line.cursors == ["7.3"]


@pytest.mark.parametrize("loss", [closed(1006), closed(1012), closed(4008), OSError("reset")])
async def test_a_lost_line_is_said_and_taken_up_where_it_was(loss: Step):
    line = Line([hello(4), frame(4), loss], [hello(5), frame(5)])
    [told, lost, back, more] = await heard(line, 4)

    assert seqs([told, more]) == [4, 5]
    assert isinstance(lost, Lost)
    assert lost.seconds <= 0.5
    assert isinstance(back, Back)
    assert line.cursors == ["7.3", "7.4"]


async def test_what_the_log_does_not_reach_back_to_is_a_gap_that_says_from_where():
    line = Line([hello(90, resumed=False), snapshot(90), frame(91)])
    [gap, told] = await heard(line, 2)

    assert isinstance(gap, Gap)
    assert (gap.seen, gap.reason) == (3, "window")
    assert seqs([told]) == [91]


async def test_after_another_epoch_it_goes_on_in_that_one():
    line = Line(
        [hello(4), frame(4), closed(1006)],
        [hello(1, resumed=False), snapshot(1, "epoch", epoch=9), frame(2), closed(1006)],
        [hello(2)],
    )
    happenings = await heard(line, 6)

    assert seqs(happenings) == [4, 2]
    assert [type(each) for each in happenings] == [Told, Lost, Gap, Told, Lost, Back]
    assert line.cursors == ["7.3", "7.4", "9.2"]


async def test_frames_that_were_seen_are_not_told_again_and_none_is_left_out():
    line = Line([hello(6), frame(3), frame(4), frame(6)], [hello(6), frame(5), frame(6)])

    assert seqs(await heard(line, 5)) == [4, 5, 6]
    assert line.cursors == ["7.3", "7.4"]


async def test_a_server_that_is_silent_or_behind_its_own_word_is_left():
    loop = asyncio.get_running_loop()
    began = loop.time()
    line = Line([hello(3)], [hello(3), ping(8)], [hello(8), frame(4)])
    happenings = await heard(line, 5)

    assert [type(each) for each in happenings] == [Lost, Back, Lost, Back, Told]
    assert 40 <= loop.time() - began < 60
    assert line.sent == [{"type": "ws.pong", "seq": 3}]


async def test_what_piles_up_is_acknowledged():
    long = {**frame(4), "data": {"text": "x" * 70_000}}  # type: ignore[dict-item]
    line = Line([hello(5), long, frame(5)])
    await heard(line, 2)

    assert line.sent[0] == {"type": "ws.pong", "seq": 3}


@pytest.mark.parametrize(
    ("code", "words"), [(4501, "signed out"), (4503, "no longer"), (4509, "ended"), (4599, "4599")]
)
async def test_a_code_that_says_stop_is_the_end_in_words(code: int, words: str):
    with pytest.raises(Ended, match=words):
        await heard(Line([hello(3), closed(code)]), 1)


async def test_the_servers_own_words_come_first():
    error = {"type": "ws.error", "data": {"code": "too_many_sockets", "message": "close some"}}
    with pytest.raises(Ended, match="close some"):
        await heard(Line([error, closed(4529)]), 1)


async def test_a_refused_handshake_is_explained_or_tried_again():
    async def it_is_gone() -> None:
        raise NotThere("there is no such conversation")

    async def the_server_is_down() -> None:
        raise Unreachable("no server answers")

    with pytest.raises(NotThere):
        await heard(Line([refused(403)]), 1, explain=it_is_gone)
    for explain in (nothing_is_wrong, the_server_is_down):
        line = Line([refused(503)], [hello(4), frame(4)])
        assert seqs(await heard(line, 3, explain=explain)) == [4]


async def test_the_waits_grow_to_half_a_minute_and_begin_anew_after_a_success():
    line = Line(*[[OSError("down")]] * 12, [hello(4), frame(4), closed(1006)])
    happenings = await heard(line, 15)
    waits = [each.seconds for each in happenings if isinstance(each, Lost)]

    assert all(wait <= min(30, 0.5 * 2**n) for n, wait in enumerate(waits[:12]))
    assert max(waits[:12]) > 5
    assert waits[12] <= 0.5
