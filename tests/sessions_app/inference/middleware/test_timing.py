"""Each model call is logged when it starts and when it ends, without what was said in it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from sessions_app.inference.errors import InferenceFailed
from sessions_app.inference.events import TextDelta, publishing_to
from sessions_app.inference.middleware import timing
from sessions_app.inference.turns import Turn, TurnMetadata, User
from sessions_app.testing import RecordingSink, ScriptedEngine, Sleep, Step

pytestmark = pytest.mark.virtual

TURN = Turn(
    id="turn-1",
    blocks=(User(text="a secret prompt"),),
    metadata=TurnMetadata(session_id="session-1", inference_id="inference-1"),
)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "sessions_app.inference.middleware.timing")
    return caplog


async def timed(*steps: Step) -> None:
    with publishing_to(RecordingSink()):
        await timing("demo")(ScriptedEngine(*steps).infer)(TURN)


def fields(lines: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in lines.records]


async def test_a_call_is_logged_at_its_start_and_its_end(lines: pytest.LogCaptureFixture):
    await timed(TextDelta("a secret answer"))
    started, finished = fields(lines)
    assert (started["event"], finished["event"]) == ("model_call.started", "model_call.finished")
    for line in (started, finished):
        assert line["model"] == "demo"
        assert line["session_id"] == "session-1"
        assert line["inference_id"] == "inference-1"
        assert line["turn_id"] == "turn-1"
    assert started["blocks"] == {"user": 1}
    assert finished["blocks"] == {"user": 1, "llm_text": 1}
    assert finished["new_blocks"] == 1
    assert finished["outcome"] == "completed"
    assert finished["error"] is None


async def test_the_duration_is_in_milliseconds(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("time.monotonic", asyncio.get_running_loop().time)
    await timed(Sleep(1.5))
    assert fields(lines)[1]["duration_ms"] == 1500


async def test_a_failed_call_says_what_was_raised_and_raises_it(lines: pytest.LogCaptureFixture):
    with pytest.raises(InferenceFailed):
        await timed(InferenceFailed("a secret reason"))
    finished = fields(lines)[1]
    assert (finished["outcome"], finished["error"]) == ("failed", "InferenceFailed")


async def test_a_cancelled_call_is_no_failure(lines: pytest.LogCaptureFixture):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await timed(Sleep(60))
    assert fields(lines)[1]["outcome"] == "cancelled"


async def test_nothing_that_was_said_is_in_the_log(lines: pytest.LogCaptureFixture):
    await timed(TextDelta("a secret answer"))
    assert "secret" not in repr(fields(lines))
