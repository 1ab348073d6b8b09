"""What Chromium's trace says of a page: the tasks of its main thread and what they did. Pure."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

CATEGORIES = ("devtools.timeline", "disabled-by-default-devtools.timeline", "blink.user_timing")

LONG_MS = 50.0

_TASK = "RunTask"
_FLUSH = "FireAnimationFrame"
_SCRIPT = frozenset(
    {"FunctionCall", "EvaluateScript", "v8.evaluateModule", "RunMicrotasks", _FLUSH}
)
_WORK = {
    **dict.fromkeys(_SCRIPT, "script"),
    "ParseHTML": "parsing",
    "UpdateLayoutTree": "style",
    "Layout": "layout",
    "PrePaint": "pre-paint",
    "Paint": "paint",
    "Layerize": "layers",
    "Commit": "commit",
    "MinorGC": "garbage",
    "MajorGC": "garbage",
}
"""Names of a trace's events, as the kinds of work they are told as."""

Event: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of the main thread: milliseconds of its CPU, and of each kind of work in it."""

    at: float
    ms: float
    work: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The tasks in order; for each flush when it was and what its script took; the marks."""

    tasks: Sequence[Task]
    flushes: Sequence[tuple[float, float]]
    marks: Mapping[str, float]

    @classmethod
    def of(cls, events: Iterable[Event]) -> Trace:
        events = list(events)
        marks = {
            event["name"]: event["ts"] / 1000
            for event in events
            if event.get("cat") == "blink.user_timing"
        }
        thread = Counter(_thread(event) for event in events if event.get("name") == "FunctionCall")
        [(main, _)] = thread.most_common(1)
        whole = sorted(
            (event for event in events if event.get("ph") == "X" and _thread(event) == main),
            key=lambda event: (event["ts"], -event.get("dur", 0)),
        )
        tasks = _tasks(whole)
        return cls(tasks=tasks, flushes=_flushes(whole), marks=marks)

    def between(self, start: str, end: str) -> Trace:
        """What began between two marks."""
        low, high = self.marks[start], self.marks[end]
        return Trace(
            tasks=[task for task in self.tasks if low <= task.at < high],
            flushes=[flush for flush in self.flushes if low <= flush[0] < high],
            marks=self.marks,
        )

    @property
    def long(self) -> Sequence[Task]:
        """The tasks that hold the page up, the longest first."""
        found = [task for task in self.tasks if task.ms > LONG_MS]
        return sorted(found, key=lambda task: -task.ms)

    @property
    def work(self) -> Mapping[str, float]:
        """Milliseconds of each kind of work."""
        total: Counter[str] = Counter()
        for task in self.tasks:
            total.update(task.work)
        return dict(total.most_common())

    @property
    def largest(self) -> Mapping[str, float]:
        """The most milliseconds of each kind of work in one task."""
        most: dict[str, float] = {}
        for task in self.tasks:
            for kind, ms in task.work.items():
                most[kind] = max(ms, most.get(kind, 0))
        return most


def _thread(event: Event) -> tuple[int, int]:
    return event.get("pid", 0), event.get("tid", 0)


def _tasks(events: Sequence[Event]) -> list[Task]:
    """Work inside of work of another kind is told as its own, and not twice."""
    found = [event for event in events if event["name"] == _TASK]
    starts = [event["ts"] for event in found]
    works: list[defaultdict[str, float]] = [defaultdict(float) for _ in found]
    open_work: list[tuple[float, str]] = []
    for event in events:
        kind = _WORK.get(event["name"])
        place = bisect.bisect_right(starts, event["ts"]) - 1
        if kind is None or place < 0:
            continue
        while open_work and open_work[-1][0] <= event["ts"]:
            open_work.pop()
        works[place][kind] += _cpu(event)
        if open_work:
            works[place][open_work[-1][1]] -= _cpu(event)
        open_work.append((event["ts"] + event.get("dur", 0), kind))
    return [
        Task(at=event["ts"] / 1000, ms=_cpu(event), work=dict(work))
        for event, work in zip(found, works, strict=True)
    ]


def _flushes(events: Sequence[Event]) -> list[tuple[float, float]]:
    """A flush is a frame's callback, with all script since the one before."""
    flushes: list[tuple[float, float]] = []
    since, end = 0.0, 0.0
    for event in events:
        if event["name"] not in _SCRIPT or event["ts"] < end:
            continue
        end = event["ts"] + event.get("dur", 0)
        since += _cpu(event)
        if event["name"] == _FLUSH:
            flushes.append((event["ts"] / 1000, since))
            since = 0.0
    return flushes


def _cpu(event: Event) -> float:
    return float(event.get("tdur", event.get("dur", 0))) / 1000
