"""What bench/trace.py reads in Chromium's trace."""

from __future__ import annotations

from typing import Any

import pytest

from bench.trace import Trace


def event(name: str, at: int, ms: int, **more: Any) -> dict[str, Any]:
    """An event of the page's thread, `at` a millisecond, whose CPU is half of its time."""
    times = {"ts": at * 1000, "dur": ms * 1000, "tdur": ms * 500}
    return {"name": name, "ph": "X", "pid": 1, "tid": 1, **times, **more}


def test_work_inside_of_other_work_is_told_once():
    trace = Trace.of(
        [
            event("RunTask", 0, 200),
            event("FunctionCall", 10, 100),
            event("Layout", 20, 40),
            event("PrePaint", 150, 20),
        ]
    )
    [task] = trace.long
    assert task.ms == pytest.approx(100)
    assert task.work == {"script": 30, "layout": 20, "pre-paint": 10}
    assert trace.largest == task.work


def test_a_flush_has_the_script_since_the_one_before():
    trace = Trace.of(
        [
            event("RunTask", 0, 10),
            event("FunctionCall", 1, 4),
            event("RunTask", 20, 10),
            event("FireAnimationFrame", 21, 8),
            event("FunctionCall", 22, 6),
            event("RunTask", 40, 10),
            event("FireAnimationFrame", 41, 2),
        ]
    )
    assert trace.flushes == [(21, 6), (41, 1)]


def test_a_phase_is_what_began_between_two_marks_and_other_threads_do_not_count():
    marks = [
        {"name": name, "ph": "I", "cat": "blink.user_timing", "ts": at * 1000, "pid": 1, "tid": 1}
        for name, at in (("begin", 100), ("end", 300))
    ]
    tasks = [event("RunTask", at, 20) for at in (50, 150, 350)]
    calls = [event("FunctionCall", 151, 10), event("RunTask", 200, 500, tid=2)]
    phase = Trace.of([*marks, *tasks, *calls]).between("begin", "end")
    assert [task.at for task in phase.tasks] == [150]
