"""How the desk says things: states, durations, owners."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple, assert_never

from django.utils.timezone import localtime

from sessions_app.values import (
    Ending,
    Idle,
    LiveSession,
    Paused,
    Running,
    SessionState,
    Stopping,
    Unloaded,
    WaitingForTools,
)

SILENT_MS = 10_000
"""A model that said nothing for this long is worth a word."""


WORRYING_MS = 60_000
"""And after this long it may be stuck."""


class StateWords(NamedTuple):
    """A state for people: its kind for colour, what it is, a detail, and whether it looks stuck."""

    kind: str
    label: str
    detail: str
    worrying: bool = False


def state_words(state: SessionState, now_ms: int) -> StateWords:
    lasted = seconds(now_ms - state.since_ms)
    match state:
        case Idle():
            return StateWords(state.kind, "Idle", f"for {lasted}")
        case Running():
            silent = now_ms - state.silent_since_ms >= WORRYING_MS
            return StateWords(state.kind, _running(state), _call(state, now_ms), silent)
        case WaitingForTools(tools=tools):
            names = ", ".join(dict.fromkeys(tool.name for tool in tools))
            return StateWords(state.kind, f"Waiting for {names}", f"for {lasted}")
        case Paused(until_ms=until_ms):
            told = f"until {clock(until_ms)}, {seconds(until_ms - now_ms)} left"
            return StateWords(state.kind, "Paused", told)
        case Stopping():
            return StateWords(state.kind, "Stopping", f"asked to {lasted} ago", True)
        case Ending():
            return StateWords(state.kind, "Ending", f"its turn is being kept, for {lasted}", True)
        case Unloaded():
            return StateWords(state.kind, "Unloaded", f"last used {lasted} ago")
        case _:
            assert_never(state)


def _running(state: Running) -> str:
    if state.model_call == 0:
        return "Starting"
    return "Answering" if state.answering else "Waiting for the model"


def _call(state: Running, now_ms: int) -> str:
    told = f"for {seconds(now_ms - state.since_ms)}"
    if state.model_call > 1:
        told += f", model call {state.model_call}"
    silent_ms = now_ms - state.silent_since_ms
    if silent_ms >= SILENT_MS:
        told += f", silent for {seconds(silent_ms)}"
    return told


def attention(session: LiveSession) -> tuple[int, int]:
    """Sorts what needs a person first, and of the same kind what has waited longest."""
    return _ATTENTION.index(type(session.state)), session.state.since_ms


_ATTENTION: list[type[SessionState]] = [
    Paused,
    Stopping,
    Ending,
    WaitingForTools,
    Running,
    Idle,
    Unloaded,
]


def duration(ms: int) -> str:
    """The two largest units: `850 ms`, `4.2 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    ms = max(0, ms)
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 10_000:
        return f"{ms / 1000:.1f} s"
    whole = ms // 1000
    for unit, size, smaller, part in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def seconds(ms: int) -> str:
    """The same in whole seconds, for what is shown anew every few of them."""
    return duration(ms // 1000 * 1000) if ms >= 10_000 else f"{max(0, ms) // 1000} s"


def clock(at_ms: int) -> str:
    """The time of day, in the server's time zone."""
    return f"{local(at_ms):%H:%M:%S}"


def local(at_ms: int) -> datetime:
    return localtime(datetime.fromtimestamp(at_ms / 1000, UTC))


def owner_words(owner: str, names: dict[str, str]) -> str:
    """The user name; `user <pk>` for an account that is gone, a short form for a visitor."""
    kind, _, rest = owner.partition(":")
    return names.get(owner) or (f"visitor {rest[:8]}" if kind == "visitor" else f"{kind} {rest}")
