"""What a terminal is shown, and that nothing a model wrote can command it."""

from __future__ import annotations

from io import StringIO

from sessions_app.inference.events import (
    AgentModeSwitched,
    AppEvent,
    Event,
    InferenceFinished,
    Log,
    PauseClosed,
    TextDelta,
    ThinkingDelta,
    ThinkingSummary,
    ToolCallFinished,
    ToolCallRequested,
    ToolProgress,
)
from sessions_app.inference.turns import Outcome
from sessions_app.terminal import Screen
from sessions_app.terminal.screen import LONGEST_RESULT


def shown(*events: Event, styled: bool = False) -> str:
    target = StringIO()
    screen = Screen(target, styled=styled)
    for event in events:
        screen.show(event)
    return target.getvalue()


def end(status: Outcome = "completed", error: str | None = None) -> InferenceFinished:
    return InferenceFinished(
        inference_id="i", status=status, model="m", stop_reason="stop", duration_ms=1, error=error
    )


def test_thinking_text_and_tools_stand_apart():
    told = shown(
        ThinkingDelta("I "),
        ThinkingDelta("think."),
        TextDelta("Let "),
        TextDelta("me see."),
        ToolCallRequested(call_id="a", name="calc", input={"expression": "6*7"}),
        ToolCallRequested(call_id="b", name="calc", input="{"),
        ToolProgress(call_id="a", progress=0.5, note="half"),
        ToolCallFinished(call_id="b", result="no JSON", status="error", duration_ms=1),
        ToolCallFinished(call_id="a", result="42", status="success", duration_ms=1),
        TextDelta("It is 42."),
        end(),
    )
    assert told == (
        "I think.\n\nLet me see.\n"
        '[1] calc {"expression": "6*7"}\n'
        "[2] calc {\n"
        "[1] … 50% half\n"
        "[2] error: no JSON\n"
        "[1] success: 42\n"
        "It is 42.\n"
    )


def test_everything_else_that_people_are_told_has_a_line():
    told = shown(
        ThinkingSummary("In short."),
        AgentModeSwitched(title="Mode switched", previous="plan", current="act"),
        Log(message="careful", level="warning", fields={"n": 1}),
        AppEvent(kind="mood", id="m", props={"level": 3}),
        PauseClosed(pause_id="p", decision="skip", by="visitor"),
    )
    assert told.splitlines() == [
        "In short.",
        "Mode switched: plan → act",
        'warning: careful {"n": 1}',
        'mood {"level": 3}',
        "skip by visitor",
    ]


def test_an_end_that_is_not_the_usual_one_says_so():
    assert shown(TextDelta("Hel"), end("cancelled")) == "Hel\n[stopped]\n"
    assert shown(end("failed", "The line was cut.")) == "[The line was cut.]\n"
    assert "limit of model calls" in shown(end("max_iterations"))


def test_no_text_of_a_model_is_a_command_to_the_terminal():
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\rsafe\x08\u202e"
    for event in (
        TextDelta(evil),
        ThinkingDelta(evil),
        Log(message=evil, fields={evil: evil}),
        ToolCallRequested(call_id="a", name=evil, input={evil: evil}),
        ToolCallFinished(call_id="a", result=evil, status="success", duration_ms=1),
        ToolProgress(call_id="a", note=evil),
        AppEvent(kind="mood", id="m", props={"x": evil}),
        AgentModeSwitched(title=evil, previous=evil, current=evil),
        end("failed", evil),
    ):
        assert not set("\x1b\x07\x9b\r\x08\u202e") & set(shown(event)), event
    assert shown(TextDelta("a\r\nb\tc\n")) == "a\nb\tc\n"


def test_a_long_result_is_cut_and_says_how_long_it_is():
    result = "x" * 5000
    told = shown(ToolCallFinished(call_id="a", result=result, status="success", duration_ms=1))
    assert f"{'x' * LONGEST_RESULT}… (5000 characters)" in told


def test_only_a_styled_screen_has_colours():
    assert "\x1b[2m" in shown(ThinkingDelta("hm"), styled=True)
    assert "\x1b" not in shown(ThinkingDelta("hm"))


def test_when_nobody_reads_any_more_the_rest_is_dropped():
    class Gone(StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    screen = Screen(Gone(), styled=False)
    screen.show(TextDelta("Hello"))
    screen.show(TextDelta("Hello"))
    assert screen.gone
