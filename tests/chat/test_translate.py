"""Events become the frames of docs/protocol.md §3: ids, offsets, order and endings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import frames
from chat.frames import StreamFrame, decode_body, encode_body
from chat.translate import DELTA_MAX_CHARS, Translator, well_formed
from sessions_app.inference import events
from sessions_app.inference.events import (
    INTERNAL_EVENTS,
    Event,
    InferenceFinished,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    TextDelta,
    ThinkingDelta,
    ThinkingSummary,
    Usage,
)
from tests.chat.wire import ORIGIN, conversations, inference

STARTS = (frames.LlmStart, frames.ThinkingStart)
CALL = ModelCallStarted(message_id="M", model="model")


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def translated(
    *told: Event, origin: Origin | None = ORIGIN, clock: Clock | None = None
) -> list[StreamFrame]:
    translator = Translator("conv", monotonic_ms=clock or Clock())
    return [frame for event in told for frame in translator.translate(event, origin)]


def story(told: Iterable[StreamFrame]) -> list[tuple[str, str]]:
    return [(type(frame).__struct_config__.tag, frame.id) for frame in told]  # type: ignore[misc]


def end(status: str = "completed", **more: object) -> InferenceFinished:
    told = {"inference_id": "i", "model": "model", "stop_reason": "stop", "duration_ms": 7, **more}
    return InferenceFinished(status=status, **told)  # type: ignore[arg-type]


# Ids and segments


def test_an_ordinary_inference_is_told_in_the_order_of_the_protocol():
    told = translated(*inference(1, "Hel", "lo", thinking="hm"))
    assert story(told) == [
        ("chat.message", "u1"),
        ("inference.started", "i1"),
        ("llm.thinking.start", "m1:thinking"),
        ("llm.thinking.delta", "m1:thinking"),
        ("llm.thinking.final", "m1:thinking"),
        ("llm.start", "m1"),
        ("llm.delta", "m1"),
        ("llm.delta", "m1"),
        ("llm.final", "m1"),
        ("inference.finished", "i1"),
    ]


def test_later_segments_of_a_model_call_are_numbered():
    deltas: list[Event] = [TextDelta("a"), ThinkingDelta("b")] * 4
    told = translated(CALL, *deltas, end())
    starts = [frame.id for frame in told if isinstance(frame, STARTS)]
    assert starts == [
        "M", "M:thinking", "M:2", "M:2:thinking", "M:3", "M:3:thinking", "M:4", "M:4:thinking"
    ]  # fmt: skip


def test_the_numbers_start_again_with_the_next_model_call():
    told = translated(
        CALL, TextDelta("a"), ThinkingDelta("b"), TextDelta("c"),
        ModelCallStarted(message_id="N", model="other"), TextDelta("d"), end(),
    )  # fmt: skip
    starts = [frame for frame in told if isinstance(frame, frames.LlmStart)]
    assert [(frame.id, frame.data.model) for frame in starts] == [
        ("M", "model"), ("M:2", "model"), ("N", "other")
    ]  # fmt: skip


def test_thinking_is_closed_before_the_first_text_after_it():
    told = translated(CALL, ThinkingDelta("hm"), TextDelta("yes"))
    assert story(told)[2:4] == [("llm.thinking.final", "M:thinking"), ("llm.start", "M")]


def test_a_model_call_without_text_starts_no_message():
    assert translated(CALL, ModelCallFinished()) == []
    assert story(translated(CALL, TextDelta(""), end())) == [("inference.finished", "i")]


def test_text_outside_of_a_model_call_is_no_frame():
    assert translated(TextDelta("a"), ThinkingDelta("b"), ThinkingSummary("c")) == []
    assert story(translated(CALL, end(), TextDelta("late"))) == [("inference.finished", "i")]


def test_a_new_model_call_closes_what_the_last_one_left_open():
    told = translated(CALL, TextDelta("a"), ModelCallStarted(message_id="N", model="model"))
    assert story(told)[-1] == ("llm.final", "M")


def test_a_late_summary_belongs_to_the_thinking_of_its_call():
    told = translated(CALL, ThinkingDelta("hm"), TextDelta("yes"), ThinkingSummary("in short"))
    assert story(told)[-1] == ("llm.thinking.summary", "M:thinking")
    told = translated(
        CALL, ThinkingDelta("a"), TextDelta("b"), ThinkingDelta("c"), ThinkingSummary("in short")
    )
    assert story(told)[-1] == ("llm.thinking.summary", "M:2:thinking")
    assert told[-1].data.text == "in short"  # type: ignore[union-attr]


def test_roles_and_model_are_told_at_the_start_of_a_segment():
    told = translated(CALL, ThinkingDelta("a"), TextDelta("b"))
    starts = [frame.data for frame in told if isinstance(frame, STARTS)]
    assert [(data.role, data.model) for data in starts] == [
        ("thinking", "model"), ("assistant", "model")
    ]  # fmt: skip


# Deltas


def deltas(told: Iterable[StreamFrame]) -> list[tuple[str, int]]:
    kinds = frames.LlmDelta | frames.ThinkingDelta
    return [(frame.data.delta, frame.data.offset) for frame in told if isinstance(frame, kinds)]


def test_offsets_count_code_points():
    told = translated(CALL, TextDelta("é😀"), TextDelta("a"), TextDelta("👍🏽"), TextDelta("z"))
    assert deltas(told) == [("é😀", 0), ("a", 2), ("👍🏽", 3), ("z", 5)]


@pytest.mark.parametrize("character", ["x", "😀"])
@pytest.mark.parametrize("length", [4095, 4096, 4097, 20_000])
def test_a_long_delta_is_cut_into_pieces_of_bounded_size(character: str, length: int):
    told = translated(CALL, TextDelta(character * length), end())
    cut = deltas(told)
    assert max(len(delta) for delta, _ in cut) <= DELTA_MAX_CHARS == 4096
    assert [offset for _, offset in cut] == list(range(0, length, 4096))
    assert "".join(delta for delta, _ in cut) == character * length


def test_the_two_halves_of_a_surrogate_pair_are_one_character():
    assert deltas(translated(CALL, TextDelta("\ud83d\ude00"))) == [("😀", 0)]


def test_a_lone_surrogate_is_the_replacement_character():
    assert deltas(translated(CALL, TextDelta("a\ud83db"))) == [("a\ufffdb", 0)]
    assert deltas(translated(CALL, TextDelta("\ude00"))) == [("\ufffd", 0)]


@given(st.text(alphabet=st.characters() | st.characters(categories=["Cs"])))
def test_any_text_becomes_one_that_utf_8_can_say_and_good_text_stays(text: str):
    mended = well_formed(text)
    mended.encode()
    assert well_formed(mended) == mended
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert mended == text


def test_surrogates_in_prompts_errors_and_log_lines_can_be_sent():
    prompt = events.PromptTaken(message_id="u", content="\ud800", turn_id="t", idempotency_key="k")
    line = events.Log(message="\ud800")
    for frame in translated(prompt, CALL, ThinkingSummary("\ud800"), line, end(error="\ud800")):
        assert decode_body(encode_body(frame)) == frame


# Endings


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("completed", "completed"),
        ("max_iterations", "completed"),
        ("cancelled", "stopped"),
        ("failed", "failed"),
        ("lost", "failed"),
    ],
)
@pytest.mark.parametrize("delta", [TextDelta("par"), ThinkingDelta("par")])
def test_what_is_open_is_closed_before_the_end_and_says_how_it_ended(
    outcome: str, status: str, delta: Event
):
    final, finished = translated(CALL, delta, end(outcome, stop_reason="error"))[-2:]
    assert isinstance(final, frames.LlmFinal | frames.ThinkingFinal)
    assert (final.data.text, final.data.status) == ("par", status)
    assert final.metadata.stop_reason == "error"
    assert isinstance(finished, frames.InferenceFinished)
    assert finished.data.status == outcome


def test_a_final_has_what_the_provider_said_of_its_call():
    clock = Clock()
    translator = Translator("conv", monotonic_ms=clock)
    translator.translate(CALL, ORIGIN)
    clock.ms = 100
    translator.translate(TextDelta("a"), ORIGIN)
    clock.ms = 350
    usage = Usage(input_tokens=3, output_tokens=5, cached_tokens=1)
    [final] = translator.translate(ModelCallFinished(stop_reason="length", usage=usage), ORIGIN)
    assert isinstance(final, frames.LlmFinal)
    assert final.data.status == "completed"
    assert final.metadata == frames.Metadata(
        model="model",
        stop_reason="length",
        duration_ms=250,
        usage=frames.UsageData(input_tokens=3, output_tokens=5, cached_tokens=1),
    )


def test_what_is_told_again_has_no_time_of_its_own():
    clock = Clock()
    translator = Translator("conv", monotonic_ms=clock)
    again = Origin(inference_id="i", turn_id="t", retold=True)
    translator.translate(CALL, again)
    translator.translate(TextDelta("a"), again)
    clock.ms = 350
    [final] = translator.translate(ModelCallFinished(), again)
    assert isinstance(final, frames.LlmFinal)
    assert final.metadata.duration_ms is None


def test_the_end_has_the_sum_of_usage_its_error_and_its_duration():
    [finished] = translated(end("failed", error="No.", usage=Usage(output_tokens=9)))
    assert isinstance(finished, frames.InferenceFinished)
    usage = frames.UsageData(input_tokens=0, output_tokens=9, cached_tokens=0)
    assert finished.data == frames.InferenceFinishedData(
        status="failed", duration_ms=7, error="No.", usage=usage
    )
    assert (finished.metadata.usage, finished.metadata.duration_ms) == (usage, 7)


# The rest of §3


def test_a_prompt_is_a_message_of_the_user():
    [frame] = translated(
        events.PromptTaken(message_id="u", content="hi", turn_id="t", idempotency_key="k")
    )
    assert frame == frames.ChatMessage(
        id="u",
        inference_id="i",
        turn_id="t",
        data=frames.ChatMessageData(role="user", content="hi", turn_id="t", idempotency_key="k"),
    )


def test_the_start_names_turn_profile_model_and_key():
    [frame] = translated(
        events.InferenceStarted(
            inference_id="i", turn_id="t", profile="chat", model="model", idempotency_key="k"
        )
    )
    assert frame.id == "i"
    assert frame.data == frames.InferenceStartedData(
        turn_id="t", profile="chat", model="model", idempotency_key="k"
    )


def test_log_lines_have_ids_of_their_own():
    line = events.Log(message="careful", level="warning", fields={"n": 1})
    first, second = translated(line, line)
    assert first.id != second.id
    assert first.data == frames.LogData(level="warning", message="careful", fields={"n": 1})


def test_a_change_of_profile_is_told_under_the_conversations_id_and_by_no_inference():
    updated = events.SessionUpdated(profile="code", fingerprint="f", step_mode=True)
    [frame] = translated(updated, origin=None)
    assert frame == frames.SessionUpdated(
        id="conv",
        data=frames.SessionUpdatedData(profile="code", fingerprint="f", step_mode=True),
    )


def test_every_frame_of_an_inference_names_inference_and_turn():
    told = translated(*inference(1, "a", thinking="b"), events.Log(message="x"))
    assert {(frame.inference_id, frame.turn_id) for frame in told} == {("i", "t")}


# What has no frame

REQUESTED = events.ToolCallRequested(call_id="c", name="double", input={"n": 1})
OPENED = events.PauseOpened(
    pause_id="p",
    phase="after_inference",
    summary="s",
    deadline_ms=1,
    on_timeout="continue",
    extra={},
)
EXAMPLES: dict[type, Event] = {
    TextDelta: TextDelta("x"),
    ThinkingDelta: ThinkingDelta("x"),
    ThinkingSummary: ThinkingSummary("x"),
    events.Log: events.Log(message="x"),
    ModelCallFinished: ModelCallFinished(),
    ModelCallStarted: ModelCallStarted(message_id="N", model="model"),
    events.Status: events.Status(note="x"),
    events.ProviderError: events.ProviderError(detail="x"),
    events.PromptTaken: events.PromptTaken(
        message_id="u", content="x", turn_id="t", idempotency_key="k"
    ),
    events.InferenceStarted: events.InferenceStarted(
        inference_id="i", turn_id="t", profile="p", model="model", idempotency_key="k"
    ),
    InferenceFinished: end(),
    events.SessionUpdated: events.SessionUpdated(profile="p", fingerprint="f", step_mode=False),
    events.ToolCallRequested: REQUESTED,
    events.ToolCallStarted: events.ToolCallStarted(call_id="c", input={"n": 1}),
    events.ToolProgress: events.ToolProgress(call_id="c", progress=0.5, note="half"),
    events.ToolCallFinished: events.ToolCallFinished(
        call_id="c", result="2", status="success", duration_ms=1
    ),
    events.PauseOpened: OPENED,
    events.PauseClosed: events.PauseClosed(pause_id="p", decision="continue", by="anna"),
    events.AgentModeSwitched: events.AgentModeSwitched(title="t", previous="a", current="b"),
    events.AppEvent: events.AppEvent(kind="mood", id="m", props={"is": "good"}),
    events.QueueUpdated: events.QueueUpdated(
        items=(events.QueuedPrompt(idempotency_key="k", preview="later"),)
    ),
}
BEFORE: dict[type, tuple[Event, ...]] = {
    events.ToolCallStarted: (REQUESTED,),
    events.ToolProgress: (REQUESTED,),
    events.ToolCallFinished: (REQUESTED,),
    events.PauseClosed: (OPENED,),
}


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_exactly_the_events_declared_internal_leave_no_trace_on_the_wire(kind: type):
    told = (CALL, TextDelta("open"), *BEFORE.get(kind, ()))
    before, after = len(translated(*told)), len(translated(*told, EXAMPLES[kind]))
    assert (after == before) == (kind in INTERNAL_EVENTS)


@pytest.mark.parametrize("kind", BEFORE, ids=lambda kind: kind.__name__)
def test_what_was_never_opened_is_not_told_of(kind: type):
    assert translated(CALL, EXAMPLES[kind]) == []


def test_open_calls_and_pauses_are_closed_before_the_end_of_their_inference():
    kinds = [type(frame) for frame in translated(CALL, REQUESTED, OPENED, end("cancelled"))]
    assert kinds[-4:] == [
        frames.DebuggerResumed,
        frames.ToolResult,
        frames.ToolDone,
        frames.InferenceFinished,
    ]


# Any order


@settings(max_examples=120, deadline=None)
@given(conversations)
def test_in_any_order_of_events_every_start_has_one_final_and_nothing_after(told: list[Event]):
    told = [CALL, *told]
    text: dict[str, str] = {}
    open_id: str | None = None
    closed: set[str] = set()
    for frame in translated(*told, end()):
        assert decode_body(encode_body(frame)) == frame
        match frame:
            case frames.LlmStart() | frames.ThinkingStart():
                assert open_id is None, "two segments are open"
                assert frame.id not in text, "an id came twice"
                assert frame.id.endswith(":thinking") == isinstance(frame, frames.ThinkingStart)
                open_id, text[frame.id] = frame.id, ""
            case frames.LlmDelta(data=data) | frames.ThinkingDelta(data=data):
                assert frame.id == open_id
                assert 0 < len(data.delta) <= DELTA_MAX_CHARS
                assert data.offset == len(text[frame.id])
                text[frame.id] += data.delta
            case frames.LlmFinal(data=final) | frames.ThinkingFinal(data=final):
                assert frame.id == open_id
                assert final.text == text[frame.id] != ""
                open_id = None
                closed.add(frame.id)
            case frames.InferenceFinished():
                assert open_id is None, "an inference ended with a segment open"
    assert closed == text.keys()


@settings(max_examples=120, deadline=None)
@given(conversations)
def test_in_any_order_of_events_no_text_of_a_model_call_is_lost(told: list[Event]):
    told = [CALL, *told]
    expected, in_call = {TextDelta: "", ThinkingDelta: ""}, False
    for event in told:
        if isinstance(event, ModelCallStarted):
            in_call = True
        elif isinstance(event, InferenceFinished):
            in_call = False
        elif isinstance(event, TextDelta | ThinkingDelta) and in_call:
            utf_16 = event.text.encode("utf-16", "surrogatepass")
            expected[type(event)] += utf_16.decode("utf-16", "replace")
    told_frames = translated(*told)
    said = [f.data.delta for f in told_frames if isinstance(f, frames.LlmDelta)]
    thought = [f.data.delta for f in told_frames if isinstance(f, frames.ThinkingDelta)]
    assert "".join(said) == expected[TextDelta]
    assert "".join(thought) == expected[ThinkingDelta]


@settings(max_examples=100, deadline=None)
@given(conversations)
def test_in_any_order_of_events_the_protocol_has_every_frame_once_for_its_event(told: list[Event]):
    kinds = [type(frame) for frame in translated(*told)]
    for event_kind, frame_kind in (
        (events.PromptTaken, frames.ChatMessage),
        (events.InferenceStarted, frames.InferenceStarted),
        (InferenceFinished, frames.InferenceFinished),
        (events.Log, frames.Log),
        (events.SessionUpdated, frames.SessionUpdated),
    ):
        assert kinds.count(frame_kind) == sum(isinstance(event, event_kind) for event in told)
