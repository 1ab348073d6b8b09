"""Proves chat/remote/show.py: what a person at a terminal reads."""

from __future__ import annotations

import time
from io import StringIO
from typing import Any

import pytest

from chat.frames import FRAME_TYPES
from chat.remote.show import FrameScreen, table
from chat.streams import StreamInfo
from sessions_app.terminal.screen import Screen
from sessions_app.values import Idle, LiveSession, Paused

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\x9b31m"


def session(**changes: Any) -> LiveSession:
    now_ms = time.time_ns() // 1_000_000
    fields: dict[str, Any] = {
        "conv_id": "c1",
        "owner": "visitor:0123456789abcdef",
        "profile": "default",
        "model": "demo",
        "fingerprint": "f",
        "state": Idle(since_ms=now_ms - 5_000),
        "running_since_ms": None,
        "queue_depth": 0,
        "step_mode": False,
        "turns": 1,
        "errors": 0,
        "last_error": None,
        "created_ms": now_ms,
        "last_activity_ms": now_ms - 5_000,
    }
    return LiveSession(**{**fields, **changes})


def shown(*frames: dict[str, Any]) -> str:
    target = StringIO()
    screen = FrameScreen(Screen(target, styled=False))
    for each in frames:
        screen.frame({"id": "x", "data": {}, **each})
    return target.getvalue()


def test_a_table_has_a_line_for_each_session_and_its_columns_stand_under_their_heads():
    now_ms = time.time_ns() // 1_000_000
    paused = session(
        conv_id="a-longer-id", state=Paused(since_ms=0, inference_id="i", until_ms=now_ms)
    )
    lines = table(
        [(session(), StreamInfo(sockets=2, head_seq=40)), (paused, StreamInfo())]
    ).splitlines()

    assert len(lines) == 3
    assert lines[0].index("OWNER") == lines[1].index("visitor 01234567")
    assert "Idle for 5 s" in lines[1]
    assert "Paused until" in lines[2]
    assert lines[1].split()[-5:] == ["2", "40", "5", "s", "ago"]


def test_a_conversation_reads_as_it_was_said():
    told = shown(
        {"type": "chat.message", "data": {"content": "how many?"}},
        {"type": "llm.start"},
        {"type": "llm.delta", "data": {"delta": "Let me "}},
        {"type": "llm.delta", "data": {"delta": "see."}},
        {"type": "llm.final", "data": {"text": "Let me see.", "status": "completed"}},
        {
            "type": "tool.start",
            "id": "t1",
            "data": {"name": "calc", "input": {"expression": "6*7"}},
        },
        {"type": "tool.delta", "id": "t1", "data": {"patch": {"exec": True}}},
        {"type": "tool.delta", "id": "t1", "data": {"patch": {"progress": 0.5, "note": "half"}}},
        {
            "type": "tool.result",
            "id": "t1",
            "data": {"result": "42", "status": "success", "durationMs": 12},
        },
        {"type": "tool.done", "id": "t1", "data": {"status": "success"}},
        {
            "type": "inference.finished",
            "data": {
                "status": "completed",
                "durationMs": 1200,
                "usage": {"inputTokens": 3, "outputTokens": 4, "cachedTokens": 0},
            },
        },
    )

    assert told == (
        "> how many?\n"
        "Let me see.\n"
        '[t1] calc {"expression": "6*7"}\n'
        "[t1] … 50% half\n"
        "[t1] success in 12 ms: 42\n"
        "[completed after 1.2 s, 3 + 4 tokens]\n"
    )


def test_a_kind_that_nobody_knows_is_shown_as_json():
    assert shown({"type": "app.mood", "data": {"props": {"mood": "good"}}}) == (
        'app.mood {"props": {"mood": "good"}}\n'
    )


HOSTILE_DATA: dict[str, dict[str, Any]] = {
    "chat.message": {"content": HOSTILE},
    "inference.started": {"profile": HOSTILE, "model": HOSTILE},
    "inference.finished": {"status": "failed", "durationMs": 1, "error": HOSTILE},
    "llm.start": {},
    "llm.delta": {"delta": HOSTILE},
    "llm.final": {"text": HOSTILE, "status": "stopped"},
    "llm.thinking.start": {},
    "llm.thinking.delta": {"delta": HOSTILE},
    "llm.thinking.final": {"text": HOSTILE, "status": "completed"},
    "llm.thinking.summary": {"text": HOSTILE},
    "tool.start": {"name": HOSTILE, "input": {HOSTILE: HOSTILE}},
    "tool.delta": {"patch": {"note": HOSTILE}},
    "tool.result": {"result": HOSTILE, "status": "error", "durationMs": 1},
    "tool.done": {"status": "error"},
    "debugger.pause": {"summary": HOSTILE, "deadlineMs": 1},
    "debugger.resumed": {"decision": "continue", "by": HOSTILE},
    "agent.mode": {"title": HOSTILE, "data": {"from": HOSTILE}},
    "log": {"level": "info", "message": HOSTILE},
    "queue.updated": {"depth": 1, "items": [{"preview": HOSTILE}]},
    "session.updated": {"profile": HOSTILE, "stepMode": True},
}


@pytest.mark.parametrize("kind", HOSTILE_DATA)
def test_nothing_that_was_said_reaches_the_terminal_as_a_command(kind: str):
    told = shown({"type": kind, "id": HOSTILE, "data": HOSTILE_DATA[kind]})

    assert not set(told) & set("\x1b\x07\r\x9b")


def test_every_type_of_frame_has_its_words():
    assert set(HOSTILE_DATA) == set(FRAME_TYPES)


def test_nothing_of_a_list_or_a_snapshot_does_either():
    target = StringIO()
    entities = [
        {"kind": "message", "updatedSeq": 5, "props": {"role": "user", "content": HOSTILE}},
        {"kind": HOSTILE, "updatedSeq": 6, "props": {"x": HOSTILE}},
        {"kind": "log", "updatedSeq": 2, "props": {"message": "seen before"}},
    ]
    FrameScreen(Screen(target, styled=False)).snapshot({"entities": entities}, after=2)
    told = target.getvalue() + table([(session(conv_id=HOSTILE, profile=HOSTILE), StreamInfo())])

    assert not set(told) & set("\x1b\x07\r\x9b")
    assert "user: " in told
    assert "seen before" not in told
