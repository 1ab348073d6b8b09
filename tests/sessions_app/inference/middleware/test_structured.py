"""JSON between tags goes to the app; the page and the history get the rest."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.inference.engine import Infer
from sessions_app.inference.errors import InferenceFailed, StreamStalled
from sessions_app.inference.events import (
    AppEvent,
    EngineEvent,
    Log,
    ModelCallFinished,
    TextDelta,
    ThinkingDelta,
    publish,
    publishing_to,
)
from sessions_app.inference.middleware import structured_output
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.turns import LlmText, ToolCall, Turn, TurnMetadata, User
from sessions_app.testing import Gate, RecordingSink, ScriptedEngine, Step

pytestmark = pytest.mark.virtual

TURN = Turn(
    blocks=(User(text="hi"),), metadata=TurnMetadata(session_id="s", inference_id="inference-1")
)
fragments = ("Look: ", "<", "ch", "<chart>", '{"x": 1}', "[1]", "oops", "</chart>", "</", "é")


async def answered(*steps: Step, tags: tuple[str, ...] = ("chart",)) -> tuple[Turn, RecordingSink]:
    sink = RecordingSink()
    with publishing_to(sink):
        turn = await structured_output(tags)(ScriptedEngine(*steps).infer)(TURN)
    return turn, sink


def said(turn: Turn) -> str:
    return "".join(block.text for block in turn.blocks if isinstance(block, LlmText))


def values(sink: RecordingSink) -> list[object]:
    return [event.props for event in sink.events if isinstance(event, AppEvent)]


@given(st.lists(st.sampled_from(fragments), max_size=12).map("".join), st.data())
async def test_any_split_of_the_stream_gives_the_same_text_and_the_same_values(
    text: str, data: st.DataObject
):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, whole_sink = await answered(TextDelta(text), ModelCallFinished())
    split, split_sink = await answered(*map(TextDelta, pieces), ModelCallFinished())
    assert said(split) == split_sink.text == said(whole) == whole_sink.text
    assert values(split_sink) == values(whole_sink)
    logs = [[e.message for e in s.events if isinstance(e, Log)] for s in (whole_sink, split_sink)]
    assert logs[0] == logs[1]
    assert isinstance(split_sink.events[-1], ModelCallFinished)


async def test_a_value_reaches_the_page_where_it_stood_in_the_answer():
    turn, sink = await answered(
        TextDelta("Before <cha"), TextDelta('rt>{"x": 1}</chart> after'), ModelCallFinished()
    )
    before, value, after, _ = sink.events
    assert (before, after) == (TextDelta("Before "), TextDelta(" after"))
    assert isinstance(value, AppEvent)
    assert (value.kind, value.props) == ("chart", {"x": 1})
    assert said(turn) == "Before  after"


async def test_a_value_that_is_no_object_comes_as_one():
    _, sink = await answered(TextDelta("<chart>[1, 2]</chart>"))
    assert values(sink) == [{"value": [1, 2]}]


async def test_an_app_may_take_the_values_itself():
    taken: list[tuple[str, object]] = []
    middleware = structured_output(("a", "b"), lambda tag, value: taken.append((tag, value)))
    with publishing_to(RecordingSink()):
        await middleware(ScriptedEngine(TextDelta("<b>1</b><a>null</a>")).infer)(TURN)
    assert taken == [("b", 1), ("a", None)]


async def test_a_receiver_that_raises_costs_nobody_the_answer(caplog: pytest.LogCaptureFixture):
    def broken(tag: str, value: object) -> None:
        raise ValueError("no")

    sink = RecordingSink()
    with publishing_to(sink):
        engine = ScriptedEngine(TextDelta("<a>1</a>fine"))
        turn = await structured_output(["a"], broken)(engine.infer)(TURN)
    assert said(turn) == sink.text == "fine"
    assert any(isinstance(event, Log) and event.level == "warning" for event in sink.events)
    assert "the receiver of <a> blocks raised" in caplog.text


async def test_a_block_that_is_no_json_is_hidden_and_reported():
    turn, sink = await answered(TextDelta("a<chart>{oops</chart>b"))
    assert said(turn) == sink.text == "ab"
    (log,) = [event for event in sink.events if isinstance(event, Log)]
    assert log.level == "warning"
    assert "A <chart> block could not be read" in log.message
    assert log.fields == {"text": "{oops"}


async def test_a_tag_that_is_never_closed_is_shown_before_the_calls_end():
    turn, sink = await answered(TextDelta('a<chart>{"x"'), ModelCallFinished())
    assert said(turn) == 'a<chart>{"x"'
    assert sink.events == [TextDelta("a"), TextDelta('<chart>{"x"'), ModelCallFinished()]


async def test_what_is_held_back_is_shown_also_where_the_engine_says_no_end():
    sink = RecordingSink()
    runner = InferenceRunner(
        ScriptedEngine('a<chart>{"x"'), middlewares=[structured_output(["chart"])]
    )
    final = await runner.run(TURN, sink=sink, cancellation=Cancellation())
    assert said(final) == sink.text == 'a<chart>{"x"'
    assert sum(isinstance(event, ModelCallFinished) for event in sink.events) == 1


async def test_a_call_ends_though_a_middleware_keeps_its_end_to_itself():
    def deaf(infer: Infer) -> Infer:
        async def to_nobody(turn: Turn) -> Turn:
            with publishing_to(RecordingSink()):
                return await infer(turn)

        return to_nobody

    sink = RecordingSink()
    runner = InferenceRunner(ScriptedEngine("hidden"), middlewares=[deaf])
    await runner.run(TURN, sink=sink, cancellation=Cancellation())
    assert sum(isinstance(event, ModelCallFinished) for event in sink.events) == 1
    assert sink.text == ""


async def test_an_answer_that_was_only_a_block_leaves_no_empty_text():
    turn, _ = await answered(TextDelta("<chart>1</chart>"))
    assert turn.blocks == TURN.blocks


async def test_text_of_earlier_answers_is_left_as_it_was():
    old = LlmText(text="<chart>1</chart>")
    turn = TURN.with_blocks(old, User(text="and?"))
    with publishing_to(RecordingSink()):
        told = await structured_output(["chart"])(ScriptedEngine(TextDelta("no")).infer)(turn)
    assert told.blocks[1] is old


async def test_the_text_of_one_call_is_one_stream_across_its_blocks():
    call = ToolCall(call_id="c", name="t", arguments={})

    async def infer(turn: Turn) -> Turn:
        publish(TextDelta("a<chart>"))
        publish(TextDelta("1</chart>b <"))
        return turn.with_blocks(LlmText(text="a<chart>"), call, LlmText(text="1</chart>b <"))

    sink = RecordingSink()
    with publishing_to(sink):
        turn = await structured_output(["chart"])(infer)(TURN)
    assert [getattr(block, "text", "") for block in turn.blocks[1:]] == ["a", "", "b <"]
    assert sink.text == "ab <"


async def test_two_of_them_each_take_their_own():
    sink = RecordingSink()
    engine = ScriptedEngine(TextDelta("1<a>1</a>2<b>2</b>3"))
    with publishing_to(sink):
        inner = structured_output(["b"])(engine.infer)
        turn = await structured_output(["a"])(inner)(TURN)
    assert said(turn) == sink.text == "123"
    kinds = [event.kind for event in sink.events if isinstance(event, AppEvent)]
    assert kinds == ["a", "b"]


async def test_other_events_pass_as_they_are():
    events: list[EngineEvent] = [ThinkingDelta("hm"), Log(message="x"), ModelCallFinished()]
    _, sink = await answered(*events)
    assert sink.events == events


async def test_a_call_that_fails_shows_what_was_held_back():
    sink = RecordingSink()
    engine = ScriptedEngine(TextDelta("a <ch"), InferenceFailed("no"))
    with publishing_to(sink), pytest.raises(InferenceFailed):
        await structured_output(["chart"])(engine.infer)(TURN)
    assert sink.text == "a <ch"


async def test_a_stopped_answer_keeps_what_was_held_back():
    gate = Gate("middle")
    engine = ScriptedEngine(TextDelta("a <ch"), gate)
    runner = InferenceRunner(engine, middlewares=[structured_output(["chart"])])
    sink, cancellation = RecordingSink(), Cancellation()
    task = asyncio.create_task(runner.run(TURN, sink=sink, cancellation=cancellation))
    await gate.reached()
    cancellation.request()
    turn = await task
    assert turn.blocks[-1] == LlmText(id=turn.blocks[-1].id, text="a <ch", stopped=True)
    assert turn.metadata.outcome == "cancelled"


async def test_a_stalled_stream_does_not_hide_why_a_call_ended():
    class Stalling(RecordingSink):
        def publish(self, event: object, origin: object = None) -> None:
            raise StreamStalled("full")

    engine = ScriptedEngine(TextDelta("<ch"), InferenceFailed("the real reason"))
    with publishing_to(Stalling()), pytest.raises(InferenceFailed, match="the real reason"):
        await structured_output(["chart"])(engine.infer)(TURN)
