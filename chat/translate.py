"""Event → frames. Pure: a state machine that knows which segment is open.

It keeps three rules of the protocol: a segment starts with its first text and has an id of its own;
thinking is closed before the text after it; what is open when an inference ends is closed first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never
from uuid import uuid4

from sessions_app.inference import events
from sessions_app.inference.events import Event, Origin

from . import frames
from .frames import StreamFrame

DELTA_MAX_CHARS = 4096
"""A longer delta is cut into several: at most 16 KiB of UTF-8 in a frame."""

MonotonicMs: TypeAlias = Callable[[], int]


@dataclass(slots=True)
class _Segment:
    """A run of text or thinking that has started and is not yet closed."""

    id: str
    thinking: bool
    started_ms: int
    parts: list[str] = field(default_factory=list)
    length: int = 0


@dataclass(slots=True)
class _ModelCall:
    message_id: str
    model: str
    segments: int = 0
    thinking_segments: int = 0


class Translator:
    """One conversation's translation. Not to be shared between conversations."""

    def __init__(self, conv_id: str, *, monotonic_ms: MonotonicMs) -> None:
        self._conv_id = conv_id
        self._now = monotonic_ms
        self._call: _ModelCall | None = None
        self._segment: _Segment | None = None

    def translate(self, event: Event, origin: Origin | None) -> list[StreamFrame]:
        """The frames this event becomes, in order; none for an internal event."""
        cause = _Cause(origin)
        match event:
            case events.TextDelta(text):
                return self._delta(text, cause, thinking=False)
            case events.ThinkingDelta(text):
                return self._delta(text, cause, thinking=True)
            case events.ThinkingSummary(text):
                return self._summary(text, cause)
            case events.ModelCallStarted(message_id=message_id, model=model):
                closing = self._close(cause, "completed")
                self._call = _ModelCall(message_id, well_formed(model))
                return closing
            case events.ModelCallFinished(stop_reason=stop_reason, usage=usage):
                return self._close(cause, "completed", stop_reason, usage)
            case events.PromptTaken():
                data = frames.ChatMessageData(
                    role="user",
                    content=well_formed(event.content),
                    turn_id=event.turn_id,
                    idempotency_key=event.idempotency_key,
                )
                return [frames.ChatMessage(id=event.message_id, data=data, **cause.ids)]
            case events.InferenceStarted():
                started = frames.InferenceStartedData(
                    turn_id=event.turn_id,
                    profile=event.profile,
                    model=well_formed(event.model),
                    idempotency_key=event.idempotency_key,
                )
                return [frames.InferenceStarted(id=event.inference_id, data=started, **cause.ids)]
            case events.InferenceFinished():
                return [*self._close_all(event, cause), _finished(event, cause)]
            case events.Log():
                line = frames.LogData(
                    level=event.level,
                    message=well_formed(event.message),
                    fields=dict(event.fields),
                )
                return [frames.Log(id=str(uuid4()), data=line, **cause.ids)]
            case events.SessionUpdated():
                updated = frames.SessionUpdatedData(
                    profile=event.profile,
                    fingerprint=event.fingerprint,
                    step_mode=event.step_mode,
                )
                return [frames.SessionUpdated(id=self._conv_id, data=updated, **cause.ids)]
            case events.Status() | events.ProviderError():
                return []
            case _:
                assert_never(event)

    def _delta(self, text: str, cause: _Cause, *, thinking: bool) -> list[StreamFrame]:
        call = self._call
        if call is None or not text:
            return []
        if not isinstance(text, str):  # an engine's mistake must not open a segment
            raise TypeError(f"a delta of {type(text).__name__}; expected text")
        text = well_formed(text)
        out: list[StreamFrame] = []
        segment = self._segment
        if segment is None or segment.thinking is not thinking:
            out += self._close(cause, "completed")
            segment = self._segment = self._open(call, thinking=thinking)
            out.append(_start(segment, call.model, cause))
        for at in range(0, len(text), DELTA_MAX_CHARS):
            piece = text[at : at + DELTA_MAX_CHARS]
            data = frames.DeltaData(delta=piece, offset=segment.length)
            kind = frames.ThinkingDelta if thinking else frames.LlmDelta
            out.append(kind(id=segment.id, data=data, **cause.ids))
            segment.parts.append(piece)
            segment.length += len(piece)
        return out

    def _open(self, call: _ModelCall, *, thinking: bool) -> _Segment:
        if thinking:
            call.thinking_segments += 1
            number = call.thinking_segments
        else:
            call.segments += 1
            number = call.segments
        own = call.message_id if number == 1 else f"{call.message_id}:{number}"
        return _Segment(f"{own}:thinking" if thinking else own, thinking, self._now())

    def _close(
        self,
        cause: _Cause,
        status: frames.MessageStatus,
        stop_reason: events.StopReason | None = None,
        usage: events.Usage | None = None,
    ) -> list[StreamFrame]:
        segment, call = self._segment, self._call
        if segment is None or call is None:
            return []
        self._segment = None
        data = frames.FinalData(text="".join(segment.parts), status=status)
        metadata = frames.Metadata(
            model=call.model,
            stop_reason=stop_reason,
            duration_ms=self._now() - segment.started_ms,
            usage=_usage(usage),
        )
        kind = frames.ThinkingFinal if segment.thinking else frames.LlmFinal
        return [kind(id=segment.id, data=data, metadata=metadata, **cause.ids)]

    def _close_all(self, event: events.InferenceFinished, cause: _Cause) -> list[StreamFrame]:
        status: frames.MessageStatus
        match event.status:
            case "completed" | "max_iterations":
                status = "completed"
            case "cancelled":
                status = "stopped"
            case "failed" | "lost":
                status = "failed"
            case _:
                assert_never(event.status)
        closing = self._close(cause, status, event.stop_reason)
        self._call = None
        return closing

    def _summary(self, text: str, cause: _Cause) -> list[StreamFrame]:
        if self._call is None or not text:
            return []
        number = max(1, self._call.thinking_segments)
        own = self._call.message_id if number == 1 else f"{self._call.message_id}:{number}"
        data = frames.SummaryData(text=well_formed(text))
        return [frames.ThinkingSummary(id=f"{own}:thinking", data=data, **cause.ids)]


class _Cause:
    """The ids that every frame of an inference carries."""

    __slots__ = ("ids",)

    def __init__(self, origin: Origin | None) -> None:
        self.ids: dict[str, str] = (
            {}
            if origin is None
            else {"inference_id": origin.inference_id, "turn_id": origin.turn_id}
        )


def _start(segment: _Segment, model: str, cause: _Cause) -> StreamFrame:
    if segment.thinking:
        data = frames.StartData(role="thinking", model=model)
        return frames.ThinkingStart(id=segment.id, data=data, **cause.ids)
    data = frames.StartData(role="assistant", model=model)
    return frames.LlmStart(id=segment.id, data=data, **cause.ids)


def _finished(event: events.InferenceFinished, cause: _Cause) -> StreamFrame:
    usage = _usage(event.usage)
    return frames.InferenceFinished(
        id=event.inference_id,
        data=frames.InferenceFinishedData(
            status=event.status,
            duration_ms=event.duration_ms,
            error=None if event.error is None else well_formed(event.error),
            usage=usage,
        ),
        metadata=frames.Metadata(
            model=well_formed(event.model),
            stop_reason=event.stop_reason,
            duration_ms=event.duration_ms,
            usage=usage,
        ),
        **cause.ids,
    )


def _usage(usage: events.Usage | None) -> frames.UsageData | None:
    if usage is None:
        return None
    return frames.UsageData(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
    )


def well_formed(text: str) -> str:
    """`text` as UTF-8 can say it: surrogate pairs joined, a lone surrogate is U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
