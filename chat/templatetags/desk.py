"""How the desk's templates say values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from django import template

from sessions_app.values import InferenceStages, PauseInfo, StageKind, Transcript

from ..desk import words
from ..desk.rows import LoggedFrame
from ..desk.turns import pretty

register = template.Library()

register.filter("state_words", words.state_words)
register.filter("lasted", words.duration)
register.filter("clock", words.clock)
register.filter("owner_words", words.owner_words)

BAR_UNITS = 1000
THINNEST_BAR = 4


@register.filter
def since(at_ms: int, now_ms: int) -> str:
    """How long ago."""
    return words.seconds(now_ms - at_ms)


@register.filter
def left(until_ms: int, now_ms: int) -> str:
    """How long until then."""
    return words.seconds(until_ms - now_ms)


@register.filter
def clock_ms(at_ms: int) -> str:
    """The time of day, to the millisecond."""
    return f"{words.clock(at_ms)}.{at_ms % 1000:03d}"


@register.filter
def moment(at_ms: int) -> str:
    """Date, time and zone."""
    return f"{words.local(at_ms):%Y-%m-%d %H:%M:%S %Z}"


@register.filter
def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


@register.filter
def newest_first(values: Sequence[Any]) -> Sequence[Any]:
    return values[::-1]


@register.filter
def pause_words(pause: PauseInfo) -> str:
    """What becomes of a pause that nobody decides."""
    if pause.on_timeout == "deny":
        return "If nobody decides, the calls that need approval are denied."
    return "If nobody decides, it continues."


@register.filter
def prompt_of(said: Transcript, key: str) -> str:
    return said.prompts.get(key, "")


class ShownCall(NamedTuple):
    id: str
    name: str
    text: str
    rows: int


@register.filter
def shown_calls(said: Transcript, pause_id: str) -> Sequence[ShownCall]:
    """The calls that a pause is about to run, with arguments as JSON for people."""
    calls = said.pauses.get(pause_id, {}).get("toolCalls", ())
    texts = [pretty(call["input"]) for call in calls]
    return [
        ShownCall(call["id"], call["name"], text, min(20, text.count("\n") + 2))
        for call, text in zip(calls, texts, strict=True)
    ]


@register.filter
def shown_results(said: Transcript, pause_id: str) -> Sequence[Mapping[str, Any]]:
    """The results that a pause shows."""
    results: Sequence[Mapping[str, Any]] = said.pauses.get(pause_id, {}).get("results", ())
    return results


@register.filter
def frame_json(frame: LoggedFrame) -> str:
    return msgspec.json.format(bytes(frame.frame)).decode()


class Bar(NamedTuple):
    """A stage as a stretch of a bar that is BAR_UNITS wide."""

    kind: StageKind
    x: int
    width: int
    words: str


@register.filter
def bars(inference: InferenceStages, now_ms: int) -> Sequence[Bar]:
    """The stages of an inference, from when its prompt began to wait to its end."""
    begin = inference.started_ms - inference.queued_ms
    whole = max(1, inference.queued_ms + inference.total_ms)
    shown = []
    for stage in inference.stages:
        end_ms = now_ms if stage.end_ms is None else stage.end_ms
        x = round((stage.start_ms - begin) * BAR_UNITS / whole)
        width = max(THINNEST_BAR, round((end_ms - stage.start_ms) * BAR_UNITS / whole))
        told = f"{stage.kind} {stage.name}".strip()
        lasted = words.duration(end_ms - stage.start_ms)
        x = max(0, min(x, BAR_UNITS - THINNEST_BAR))
        shown.append(Bar(stage.kind, x, min(width, BAR_UNITS - x), f"{told}, {lasted}"))
    return shown
