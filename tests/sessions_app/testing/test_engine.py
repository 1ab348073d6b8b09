"""The scripted engine plays what it was given, in the order it was given."""

from __future__ import annotations

import pytest

from sessions_app.inference.errors import InferenceFailed
from sessions_app.inference.events import Status, TextDelta, ThinkingDelta, publishing_to
from sessions_app.inference.turns import LlmText, Reasoning, ToolCall, Turn
from sessions_app.testing import RecordingSink, ScriptedEngine

CALL = ToolCall(call_id="call_1", name="refund", arguments={"order": 7})


async def answered(engine: ScriptedEngine, turn: Turn | None = None) -> tuple[Turn, RecordingSink]:
    sink = RecordingSink()
    with publishing_to(sink):
        return await engine.infer(turn or Turn()), sink


async def test_text_and_events_are_published_and_the_answer_is_made_of_them():
    engine = ScriptedEngine(ThinkingDelta("hm"), "Hel", Status(note="…"), TextDelta("lo"), CALL)
    turn, sink = await answered(engine)

    assert (sink.thinking, sink.text) == ("hm", "Hello")
    assert [type(block) for block in turn.blocks] == [Reasoning, LlmText, ToolCall]
    assert Status(note="…") in sink.events


async def test_steps_alone_are_played_in_each_call_and_a_call_twice_is_two_blocks():
    engine = ScriptedEngine(CALL)
    once, _ = await answered(engine)
    twice, _ = await answered(engine, once)

    assert len({block.id for block in twice.blocks}) == 2
    assert engine.turns == [Turn(id=engine.turns[0].id), once]


async def test_each_list_is_one_call_and_one_more_fails_with_a_sentence():
    engine = ScriptedEngine([CALL], ["Done."])
    assert isinstance((await answered(engine))[0].blocks[0], ToolCall)
    assert (await answered(engine))[1].text == "Done."

    with pytest.raises(InferenceFailed, match="script has 2 model calls"):
        await answered(engine)

    engine.play("More.")
    assert (await answered(engine))[1].text == "More."


def test_steps_beside_lists_are_refused():
    with pytest.raises(TypeError, match="one or the other"):
        ScriptedEngine("Hello", [CALL])
