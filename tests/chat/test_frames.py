"""The wire types and their codec, against docs/protocol.md."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat import frames
from chat.frames import (
    BadCursor,
    BadFrame,
    Cursor,
    Ignored,
    Ping,
    Pong,
    StreamFrame,
    connection_frame,
    decode_body,
    decode_client,
    encode_body,
    envelope,
    utf8_size,
)

texts = st.text(max_size=30)
usages = st.builds(
    frames.UsageData,
    input_tokens=st.integers(0, 2**40),
    output_tokens=st.integers(0, 2**40),
    cached_tokens=st.integers(0, 2**40),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
FREE: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    frames.LogData: {"fields": json_objects},
    frames.ToolStartData: {"input": json_objects | texts},
    frames.ToolPatch: {
        "input": json_objects | st.none(),
        "progress": st.floats(0, 1) | st.none(),
    },
    frames.PauseData: {"extra": json_objects},
    frames.AppData: {"props": json_objects},
}
for kind, free in FREE.items():
    st.register_type_strategy(kind, st.builds(kind, **free))
stream_frames: st.SearchStrategy[StreamFrame] = st.one_of(
    *(st.from_type(kind) for kind in get_args(StreamFrame) if kind is not frames.App),
    st.builds(frames.App, type=texts.map("app.{}".format)),
)
WIRE_NAMES = {
    "chat.message", "inference.started", "inference.finished", "llm.start", "llm.delta",
    "llm.final", "llm.thinking.start", "llm.thinking.delta", "llm.thinking.final",
    "llm.thinking.summary", "log", "session.updated", "tool.start", "tool.delta", "tool.result",
    "tool.done", "debugger.pause", "debugger.resumed", "agent.mode", "queue.updated",
}  # fmt: skip


# Stream frames


@settings(max_examples=150, deadline=None)
@given(stream_frames)
def test_a_body_reads_back_as_the_frame_it_was(frame: StreamFrame):
    assert decode_body(encode_body(frame)) == frame


@settings(max_examples=150, deadline=None)
@given(stream_frames, st.integers(1, 2**53 - 1), st.none() | st.just("1764000000123-0"))
def test_the_envelope_is_json_with_the_body_and_its_position(
    frame: StreamFrame, seq: int, stream_id: str | None
):
    message = json.loads(envelope(encode_body(frame), seq, stream_id))
    assert message["sem"] is True
    event = message["event"]
    assert event.pop("seq") == seq
    assert event.pop("stream_id", None) == stream_id
    assert event == json.loads(encode_body(frame))
    assert message.keys() == {"sem", "event"}


def test_the_types_are_those_of_the_protocol():
    names = {kind.__struct_config__.tag for kind in get_args(StreamFrame)}
    assert names - {None} == WIRE_NAMES


def test_keys_of_data_and_metadata_are_camel_case_and_what_is_absent_is_left_out():
    usage = frames.UsageData(input_tokens=1, output_tokens=2, cached_tokens=0)
    frame = frames.InferenceFinished(
        id="i",
        inference_id="i",
        turn_id="t",
        data=frames.InferenceFinishedData(status="completed", duration_ms=12),
        metadata=frames.Metadata(model="m", stop_reason="stop", duration_ms=12, usage=usage),
    )
    assert json.loads(encode_body(frame)) == {
        "type": "inference.finished",
        "id": "i",
        "inference_id": "i",
        "turn_id": "t",
        "data": {"status": "completed", "durationMs": 12},
        "metadata": {
            "model": "m",
            "stopReason": "stop",
            "durationMs": 12,
            "usage": {"inputTokens": 1, "outputTokens": 2, "cachedTokens": 0},
        },
    }


def test_an_empty_delta_and_a_false_flag_are_told_all_the_same():
    delta = frames.LlmDelta(id="m", data=frames.DeltaData(delta="", offset=0))
    assert json.loads(encode_body(delta))["data"] == {"delta": "", "offset": 0}
    updated = frames.SessionUpdatedData(profile="", fingerprint="", step_mode=False)
    frame = frames.SessionUpdated(id="c", data=updated)
    assert json.loads(encode_body(frame))["data"]["stepMode"] is False


@pytest.mark.parametrize(
    "body",
    [
        "{}", "[]", "null", "", '{"type":"llm.nothing","id":"x","data":{}}',
        '{"type":"llm.delta","id":"x","data":{"delta":1,"offset":0}}',
        '{"type":"llm.delta","data":{"delta":"x","offset":0}}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_frame_is_refused(body: str):
    with pytest.raises(msgspec.DecodeError):
        decode_body(body)


@given(st.text())
def test_the_size_is_that_of_the_bytes_on_the_wire(text: str):
    assert utf8_size(text) == len(text.encode())


def test_a_connection_frame_has_no_position():
    message = json.loads(connection_frame("ws.ping", "conv", {"headSeq": 3}))
    event = {"type": "ws.ping", "id": "conv", "data": {"headSeq": 3}}
    assert message == {"sem": True, "event": event}


# Cursors

cursors = st.builds(
    Cursor,
    st.integers(0, 10**16 - 1),
    st.integers(0, 10**16 - 1),
    st.none() | st.builds("{}-{}".format, st.integers(0, 10**20 - 1), st.integers(0, 10**20 - 1)),
)


@given(cursors)
def test_a_cursor_reads_back_as_it_was_written(cursor: Cursor):
    assert Cursor.parse(str(cursor)) == cursor


def is_cursor(text: str) -> bool:
    """The grammar of the protocol, spelled out by hand."""
    digits = set("0123456789")
    parts = text.split(".")
    if len(parts) not in (2, 3):
        return False
    numbers, bounds = parts[:2], [16, 16]
    if len(parts) == 3:
        halves = parts[2].split("-")
        if len(halves) != 2:
            return False
        numbers, bounds = numbers + halves, [*bounds, 20, 20]
    return all(
        0 < len(number) <= bound and set(number) <= digits
        for number, bound in zip(numbers, bounds, strict=True)
    )


@settings(max_examples=150)
@given(
    st.text(max_size=40)
    | st.text(alphabet="0123456789.-", max_size=40)
    | st.lists(st.sampled_from(["1", "12345678901234567", "٣", "²", ".", "-", "+", " ", "\n"]))
    .map("".join)
)  # fmt: skip
@example("1.2\n")
@example("1.2.")
@example("1.2.3-4-5")
@example("١.٢")
@example("1e3.2")
@example("-1.2")
@example("")
@example("1.2.3")
@example("9" * 17 + ".1")
@example("1." + "9" * 100_000)
def test_a_text_is_a_cursor_exactly_by_the_grammar(text: str):
    if is_cursor(text):
        parsed = Cursor.parse(text)
        assert (parsed.epoch, parsed.seq) == tuple(map(int, text.split(".")[:2]))
    else:
        with pytest.raises(BadCursor) as caught:
            Cursor.parse(text)
        assert len(str(caught.value)) < 1000


# What clients say


@pytest.mark.parametrize(
    "text",
    [
        "ping", "PING", " Ping\n",
        '{"type":"ws.ping"}', '{"type":" WS.Ping "}', ' {"type":"ws.ping","more":[1]} ',
        '{"sem":true,"event":{"type":"ws.ping"}}', '{"sem":true,"event":{"type":"WS.PING "}}\n',
    ],
)  # fmt: skip
def test_each_form_of_a_ping_is_a_ping(text: str):
    assert decode_client(text) == Ping()


@pytest.mark.parametrize("nonce", ["x", "", "😀", 0, -5, 2**52])
def test_the_nonce_of_a_ping_is_kept(nonce: str | int):
    assert decode_client(json.dumps({"type": "ws.ping", "nonce": nonce})) == Ping(nonce)
    wrapped = {"sem": True, "event": {"type": "ws.ping", "nonce": nonce}}
    assert decode_client(json.dumps(wrapped)) == Ping(nonce)


@pytest.mark.parametrize("nonce", [None, [], {}, 1.5, "x" * 129, 2**60, -(2**60)])
def test_a_nonce_that_would_be_a_burden_is_left_out(nonce: object):
    assert decode_client(json.dumps({"type": "ws.ping", "nonce": nonce})) == Ping()


@pytest.mark.parametrize(
    "form", ['{"type":"ws.pong","seq":%s}', '{"sem":true,"event":{"type":"WS.Pong","seq":%s}}']
)
def test_a_pong_says_how_far_the_client_has_read(form: str):
    assert decode_client(form % 42) == Pong(42)
    assert decode_client(form % 0) == Pong(0)


@pytest.mark.parametrize("seq", ["-1", "null", '"7"', "1.5", "9007199254740992", "[]", "true"])
def test_a_pong_without_a_position_says_nothing(seq: str):
    assert decode_client(f'{{"type":"ws.pong","seq":{seq}}}') == Pong(None)


@pytest.mark.parametrize(
    "text",
    [
        "{}", '{"type":"ws.hello"}', '{"type":7}', '{"type":null}', '{"sem":false,"event":3}',
        '{"sem":true,"event":{}}', '{"a":1,"a":2}', '{"type":"chat.message","data":{}}',
    ],
)  # fmt: skip
def test_what_is_well_formed_and_nothing_to_us_is_ignored(text: str):
    assert decode_client(text) == Ignored()


MALFORMED = {
    "empty": "",
    "blank": " \n",
    "word": "pong",
    "two words": "ping ping",
    "deep array": "[" * 30_000,
    "deep closed array": "[" * 30_000 + "]" * 30_000,
    "deep object": '{"a":' * 30_000,
    "deep within": '{"type":"ws.ping","nonce":' + "[" * 30_000 + "]" * 30_000 + "}",
    "long number": "9" * 60_000,
    "long number within": '{"type":"ws.ping","nonce":' + "9" * 60_000 + "}",
    "long fraction": '{"a":0.' + "9" * 60_000 + "e}",
    "nan": "NaN",
    "nan within": '{"type":"ws.pong","seq":NaN}',
    "infinity within": '{"seq":Infinity}',
    "too large": '{"seq":1e999}',
    "lone surrogate escape": '{"type":"ws.ping","nonce":"\\ud800"}',
    "lone surrogate key": '{"\\udfff":1}',
    "lone surrogate": '{"a":"\ud800"}',
    "bare surrogate": "\udcff",
    "bom": "\ufeff{}",
    "null byte": "{}\x00",
    "array": "[1]",
    "string": '"ping"',
    "number": "3",
    "true": "true",
    "null": "null",
    "two values": "{}{}",
    "cut": '{"type":"ws.pi',
    "single quotes": "{'type':'ws.ping'}",
    "no event": '{"sem":true}',
    "event is no object": '{"sem":true,"event":"ws.ping"}',
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_text_is_a_bad_frame_with_a_short_sentence(text: str):
    with pytest.raises(BadFrame) as caught:
        decode_client(text)
    assert 0 < len(str(caught.value)) < 200


def test_duplicate_keys_are_read_as_json_readers_do():
    assert decode_client('{"type":"ws.pong","type":"ws.ping"}') == Ping()


@settings(max_examples=150, deadline=None)
@given(
    st.text()
    | st.text(alphabet='{}[]":,\\ud8019eE+-.truefalsn \n', max_size=60)
    | json_values.map(json.dumps)
    | st.dictionaries(
        st.sampled_from(["type", "sem", "event", "seq", "nonce"]),
        json_values | st.sampled_from(["ws.ping", "ws.pong", True, {"type": "ws.ping"}]),
    ).map(json.dumps)
)
def test_no_text_makes_another_error_than_a_bad_frame(text: str):
    try:
        said = decode_client(text)
    except BadFrame:
        return
    assert isinstance(said, Ping | Pong | Ignored)
