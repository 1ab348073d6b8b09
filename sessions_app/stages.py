"""StageRecorder: where the time of a session's inferences goes, read from what they say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from .inference.events import (
    Event,
    EventSink,
    InferenceFinished,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    PauseClosed,
    PauseOpened,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolCallRequested,
    ToolCallStarted,
)
from .inference.turns import Outcome, Turn
from .values import (
    Ending,
    InferenceStages,
    Paused,
    Running,
    Stage,
    StageKind,
    ToolInfo,
    WaitingForTools,
)

KEPT_INFERENCES = 20
KEPT_STAGES = 64
HANDED_ON_INFERENCES = 3
HANDED_ON_STAGES = 16
"""Less than is kept: it is written with every change of a session that many processes may have."""

FAILURES: frozenset[Outcome | None] = frozenset(("failed", "lost"))
_MODEL = "model"


def failures(turns: Iterable[Turn]) -> int:
    """How many inferences of these turns failed."""
    return sum(turn.metadata.outcome in FAILURES for turn in turns)


@dataclass(frozen=True, slots=True)
class _OpenStage:
    kind: StageKind
    name: str
    start_ms: int
    until_ms: int = 0


class _Inference:
    """The stages of one inference so far."""

    def __init__(
        self,
        *,
        inference_id: str,
        profile: str,
        model: str,
        fingerprint: str,
        queued_since_ms: int | None,
        now_ms: int,
    ) -> None:
        self.id = inference_id
        self.last_ms = now_ms
        self.model_calls = 0
        self.answering = False
        self.ended_ms: int | None = None
        self.outcome: Outcome | None = None
        self.error: str | None = None
        self.open: dict[str, _OpenStage] = {}
        self._profile = profile
        self._model = model
        self._fingerprint = fingerprint
        self._started_ms = now_ms
        self._queued_ms = 0 if queued_since_ms is None else max(0, now_ms - queued_since_ms)
        self._first_token_ms: int | None = None
        self._tool_names: dict[str, str] = {}
        self._counts: dict[StageKind, int] = {}
        self._totals: dict[StageKind, int] = {}
        self._since: dict[StageKind, int] = {}
        self._closed: list[Stage] = []
        self._dropped = 0
        if queued_since_ms is not None:
            self._keep("queue", "", queued_since_ms, now_ms)

    def note(self, event: Event, now_ms: int) -> None:
        self.last_ms = now_ms
        match event:
            case TextDelta() | ThinkingDelta():
                if self._first_token_ms is None:
                    self._first_token_ms = now_ms - self._started_ms
                self.answering = True
            case ModelCallStarted(model=model):
                self._end(_MODEL, now_ms)
                self.model_calls += 1
                self.answering = False
                self._begin(_MODEL, _OpenStage("model", model, now_ms))
            case ModelCallFinished():
                self._end(_MODEL, now_ms)
            case ToolCallRequested(call_id=call_id, name=name):
                self._tool_names[call_id] = name
            case ToolCallStarted(call_id=call_id):
                name = self._tool_names.get(call_id, "")
                self._begin(call_id, _OpenStage("tool", name, now_ms))
            case ToolCallFinished(call_id=call_id):
                self._tool_names.pop(call_id, None)
                self._end(call_id, now_ms)
            case PauseOpened(pause_id=pause_id, phase=phase, deadline_ms=until_ms):
                self._begin(pause_id, _OpenStage("pause", phase, now_ms, until_ms))
            case PauseClosed(pause_id=pause_id):
                self._end(pause_id, now_ms)
            case InferenceFinished(status=status, error=error):
                for key in tuple(self.open):
                    self._end(key, now_ms)
                self.ended_ms, self.outcome, self.error = now_ms, status, error
            case _:
                pass

    def state(self) -> Running | WaitingForTools | Paused | Ending:
        """What the inference does now, as far as it has said."""
        if self.ended_ms is not None:
            return Ending(inference_id=self.id, since_ms=self.ended_ms)
        pauses = [stage for stage in self.open.values() if stage.kind == "pause"]
        if pauses:
            return Paused(
                inference_id=self.id,
                since_ms=min(stage.start_ms for stage in pauses),
                until_ms=min(stage.until_ms for stage in pauses),
            )
        tools = tuple(
            ToolInfo(call_id=key, name=stage.name, since_ms=stage.start_ms)
            for key, stage in self.open.items()
            if stage.kind == "tool"
        )
        if tools:
            since_ms = min(tool.since_ms for tool in tools)
            return WaitingForTools(inference_id=self.id, since_ms=since_ms, tools=tools)
        return Running(
            inference_id=self.id,
            since_ms=self._started_ms,
            model_call=self.model_calls,
            answering=self.answering,
            silent_since_ms=self.last_ms,
        )

    def value(self, now_ms: int) -> InferenceStages:
        running = tuple(
            Stage(kind=stage.kind, name=stage.name, start_ms=stage.start_ms, end_ms=None)
            for stage in self.open.values()
        )
        return InferenceStages(
            inference_id=self.id,
            profile=self._profile,
            model=self._model,
            fingerprint=self._fingerprint,
            started_ms=self._started_ms,
            queued_ms=self._queued_ms,
            first_token_ms=self._first_token_ms,
            model_ms=self._total("model", now_ms),
            model_calls=self._counts.get("model", 0),
            tools_ms=self._total("tool", now_ms),
            tool_calls=self._counts.get("tool", 0),
            paused_ms=self._total("pause", now_ms),
            pauses=self._counts.get("pause", 0),
            total_ms=(now_ms if self.ended_ms is None else self.ended_ms) - self._started_ms,
            outcome=self.outcome,
            error=self.error,
            stages=(*self._closed, *running),
            dropped=self._dropped,
        )

    @property
    def started_ms(self) -> int:
        return self._started_ms

    def _begin(self, key: str, stage: _OpenStage) -> None:
        if not self._is_open(stage.kind):
            self._since[stage.kind] = stage.start_ms
        self.open[key] = stage
        self._counts[stage.kind] = self._counts.get(stage.kind, 0) + 1

    def _end(self, key: str, now_ms: int) -> None:
        stage = self.open.pop(key, None)
        if stage is None:
            return
        if not self._is_open(stage.kind):
            self._totals[stage.kind] = self._total(stage.kind, now_ms)
            del self._since[stage.kind]
        self._keep(stage.kind, stage.name, stage.start_ms, now_ms)

    def _keep(self, kind: StageKind, name: str, start_ms: int, end_ms: int) -> None:
        if len(self._closed) < KEPT_STAGES:
            self._closed.append(Stage(kind=kind, name=name, start_ms=start_ms, end_ms=end_ms))
        else:
            self._dropped += 1

    def _is_open(self, kind: StageKind) -> bool:
        return any(stage.kind == kind for stage in self.open.values())

    def _total(self, kind: StageKind, now_ms: int) -> int:
        since = self._since.get(kind)
        return self._totals.get(kind, 0) + (0 if since is None else max(0, now_ms - since))


class StageRecorder:
    """An EventSink in front of another: passes events on, and notes when stages begin and end.

    Keeps the last `KEPT_INFERENCES`, and at most `KEPT_STAGES` ended stages of each. `handed_on`
    has the last that ended, for whoever goes on with the session and starts with them.
    """

    def __init__(self, sink: EventSink, *, now_ms: Callable[[], int]) -> None:
        self.errors = 0
        self.last_error: str | None = None
        self.current: _Inference | None = None
        self.handed_on: tuple[InferenceStages, ...] = ()
        self._sink = sink
        self._now_ms = now_ms
        self._earlier: tuple[InferenceStages, ...] = ()
        self._kept: deque[_Inference] = deque(maxlen=KEPT_INFERENCES)

    def begin(
        self,
        inference_id: str,
        *,
        profile: str,
        model: str,
        fingerprint: str,
        queued_since_ms: int | None,
    ) -> None:
        """What is published from here on is this inference's."""
        self.current = _Inference(
            inference_id=inference_id,
            profile=profile,
            model=model,
            fingerprint=fingerprint,
            queued_since_ms=queued_since_ms,
            now_ms=self._now_ms(),
        )
        self._kept.append(self.current)

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        self._sink.publish(event, origin)
        current = self.current
        if current is None or origin is None or origin.inference_id != current.id:
            return
        now_ms = self._now_ms()
        current.note(event, now_ms)
        if isinstance(event, InferenceFinished):
            ended = (*self.handed_on, _short(current.value(now_ms)))
            self.handed_on = ended[-HANDED_ON_INFERENCES:]
            if event.status in FAILURES:
                self.errors += 1
                self.last_error = event.error

    def go_on_from(self, handed_on: tuple[InferenceStages, ...]) -> None:
        """What another recorder of the same session handed on. Only before the first event."""
        self._earlier = self.handed_on = handed_on

    async def flush(self) -> None:
        await self._sink.flush()

    def inferences(self) -> Sequence[InferenceStages]:
        """The inferences that are kept, oldest first."""
        now_ms = self._now_ms()
        noted = [inference.value(now_ms) for inference in self._kept]
        return [*self._earlier, *noted][-KEPT_INFERENCES:]


def _short(inference: InferenceStages) -> InferenceStages:
    """The same with fewer of its stages."""
    left_out = len(inference.stages) - HANDED_ON_STAGES
    if left_out <= 0:
        return inference
    return msgspec.structs.replace(
        inference,
        stages=inference.stages[:HANDED_ON_STAGES],
        dropped=inference.dropped + left_out,
    )
