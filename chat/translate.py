"""Event → frames. Pure: a state machine that knows which segment is open.

It keeps four rules of the protocol: a segment starts with its first text and has an id of its own;
thinking is closed before the text after it; what is open when an inference ends is closed first; an
app's frame says what its event changed, and only of an entity of its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, assert_never
from uuid import uuid4

import msgspec

from sessions_app.inference import events
from sessions_app.inference.events import Event, Origin
from sessions_app.inference.events import well_formed as well_formed

from . import frames
from .app_kinds import AppKinds, merged
from .frames import StreamFrame
from .timeline import OWN_KINDS, Timeline

logger = logging.getLogger(__name__)

DELTA_MAX_CHARS = 4096
"""A longer delta is cut into several: at most 16 KiB of UTF-8 in a frame."""

APP_PROPS_MAX_BYTES = 64 * 1024
"""What an app's event may tell, and an entity with a fold of its own may have, as JSON."""


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

    def __init__(
        self, conv_id: str, *, monotonic_ms: MonotonicMs, kinds: AppKinds | None = None
    ) -> None:
        self._conv_id = conv_id
        self._kinds = kinds or AppKinds()
        self._now = monotonic_ms
        self._cause = _Cause(None)
        self._call: _ModelCall | None = None
        self._segment: _Segment | None = None
        self._tools: dict[str, int] = {}  # requested and not finished, with their time
        self._began: set[str] = set()  # of these the ones that run
        self._pauses: list[str] = []
        self._owners: dict[str, str | None] = {}  # of each id its app's kind, None for our own
        self._app_props: dict[str, bytes] = {}  # by id, as JSON, for kinds with a fold of their own

    def resume(self, timeline: Timeline) -> None:
        """Knows what is open in a log that another has written, so that its end can be told."""
        for entity in timeline.entities():
            props = entity.props
            self._owners[entity.id] = None if entity.kind in OWN_KINDS else entity.kind
            match entity.kind:
                case "message" if props["streaming"]:
                    thinking = props["role"] == "thinking"
                    self._call = _ModelCall(entity.id, props["metadata"]["model"])
                    self._segment = _Segment(
                        entity.id,
                        thinking,
                        self._now(),
                        parts=[props["content"]],
                        length=len(props["content"]),
                    )
                case "tool_call" if not props["done"]:
                    self._tools[entity.id] = self._now()
                case "debugger_pause" if props["open"]:
                    self._pauses.append(entity.id)
                case _ if self._owners[entity.id] is not None:
                    self._app_props[entity.id] = msgspec.json.encode(props)

    def translate(self, event: Event, origin: Origin | None) -> list[StreamFrame]:
        """The frames this event becomes, in order; none for an internal event.

        Raises ValueError for an app's event that is too large, or whose id is not its kind's.
        """
        if origin is not self._cause.origin:
            self._cause = _Cause(origin)
        if type(event) is events.TextDelta:  # nearly all of them, and the shortest way
            told = self._delta(event.text, self._cause, thinking=False)
            if len(told) == 1:  # more of a segment that is known
                return told
        else:
            told = self._translate(event, self._cause)
        for frame in told:
            self._owners.setdefault(frame.id, None)
        return told

    def _translate(self, event: Event, cause: _Cause) -> list[StreamFrame]:
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
            case events.ToolCallRequested():
                self._tools[event.call_id] = self._now()
                start = frames.ToolStartData(name=well_formed(event.name), input=_json(event.input))
                return [
                    *self._close(cause, "completed"),
                    frames.ToolStart(id=event.call_id, data=start, **cause.ids),
                ]
            case events.ToolCallStarted():
                self._began.add(event.call_id)
                patch = frames.ToolPatch(exec=True, input=_json(dict(event.input)))
                return self._tool_delta(event.call_id, patch, cause)
            case events.ToolProgress():
                patch = frames.ToolPatch(
                    progress=event.progress, note=well_formed(event.note) or None
                )
                return self._tool_delta(event.call_id, patch, cause)
            case events.ToolCallFinished():
                return self._tool_end(event, cause)
            case events.PauseOpened():
                self._pauses.append(event.pause_id)
                pause = frames.PauseData(
                    pause_id=event.pause_id,
                    phase=event.phase,
                    summary=well_formed(event.summary),
                    deadline_ms=event.deadline_ms,
                    on_timeout=event.on_timeout,
                    extra=_json(dict(event.extra)),
                )
                return [frames.DebuggerPause(id=event.pause_id, data=pause, **cause.ids)]
            case events.PauseClosed():
                return self._pause_end(event.pause_id, event.decision, event.by, cause)
            case events.AgentModeSwitched():
                change = frames.AgentModeChange(
                    previous=event.previous,
                    current=event.current,
                    analysis=well_formed(event.analysis),
                )
                mode = frames.AgentModeData(title=well_formed(event.title), data=change)
                return [frames.AgentMode(id=str(uuid4()), data=mode, **cause.ids)]
            case events.QueueUpdated(items=items):
                waiting = [
                    frames.QueueItemData(
                        idempotency_key=item.idempotency_key,
                        position=position,
                        preview=well_formed(item.preview),
                    )
                    for position, item in enumerate(items, 1)
                ]
                queue = frames.QueueData(depth=len(waiting), items=waiting)
                return [frames.QueueUpdated(id=self._conv_id, data=queue)]
            case events.AppEvent():
                return [self._app(event, cause)]
            case events.Log():
                line = frames.LogData(
                    level=event.level,
                    message=well_formed(event.message),
                    fields=_json(dict(event.fields)),
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

    def _app(self, event: events.AppEvent, cause: _Cause) -> StreamFrame:
        owner = self._owners.setdefault(event.id, event.kind)
        if owner != event.kind:
            raise ValueError(
                f"an event of the kind {event.kind!r} has the id {event.id!r}, which belongs to "
                f"{'something of ours' if owner is None else f'the kind {owner!r}'}; give it an "
                f"id of its own, as in '{event.kind}:{event.id}'"
            )
        told = _json(dict(event.props))
        _bounded(event.kind, msgspec.json.encode(told))
        data = self._folded(event.kind, event.id, told)
        kind = f"{frames.APP_PREFIX}{event.kind}"
        return frames.App(type=kind, id=event.id, data=data, **cause.ids)

    def _folded(self, kind: str, id: str, told: dict[str, Any]) -> frames.AppData:
        """What the event changes. A fold that raises must not cost the event: it is merged."""
        registered = self._kinds.get(kind)
        if registered is None or registered.fold is merged:
            return frames.AppData(props=told)
        kept = self._app_props.get(id, b"{}")
        before = msgspec.json.decode(kept)
        try:
            # The fold gets copies: it may keep or change what it is given.
            after = _json(dict(registered.fold(msgspec.json.decode(kept), _json(told))))
        except Exception:
            logger.exception("the fold of the app kind %r raised; its props are merged", kind)
            after = {**before, **told}
        self._app_props[id] = _bounded(kind, msgspec.json.encode(after))
        return frames.AppData(
            props={name: value for name, value in after.items() if not _has(before, name, value)},
            removed=tuple(name for name in before if name not in after),
        )

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
        kind = frames.ThinkingDelta if thinking else frames.LlmDelta
        for piece in (text,) if len(text) <= DELTA_MAX_CHARS else _cut(text):
            data = frames.DeltaData(delta=piece, offset=segment.length)
            out.append(
                kind(
                    id=segment.id,
                    data=data,
                    inference_id=cause.inference_id,
                    turn_id=cause.turn_id,
                )
            )
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
            duration_ms=None if cause.retold else self._now() - segment.started_ms,
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
        for pause_id in tuple(self._pauses):
            closing += self._pause_end(pause_id, "cancelled", "system", cause)
        for call_id, requested_ms in tuple(self._tools.items()):
            # A process that is gone may have begun what the log does not know of.
            began = event.status == "lost" or call_id in self._began
            cut = events.ToolCallFinished(
                call_id=call_id,
                result=events.OUTCOME_UNKNOWN if began else events.NEVER_BEGAN,
                status="cancelled",
                duration_ms=self._now() - requested_ms if began else 0,
            )
            closing += self._tool_end(cut, cause)
        self._began.clear()
        return closing

    def _tool_delta(
        self, call_id: str, patch: frames.ToolPatch, cause: _Cause
    ) -> list[StreamFrame]:
        if call_id not in self._tools:
            return []
        data = frames.ToolDeltaData(patch=patch)
        return [frames.ToolDelta(id=call_id, data=data, **cause.ids)]

    def _tool_end(self, event: events.ToolCallFinished, cause: _Cause) -> list[StreamFrame]:
        if self._tools.pop(event.call_id, None) is None:
            return []
        result = frames.ToolResultData(
            result=well_formed(event.result),
            status=event.status,
            duration_ms=event.duration_ms,
            custom_kind=event.custom_kind,
        )
        done = frames.ToolDoneData(status=event.status)
        return [
            frames.ToolResult(id=event.call_id, data=result, **cause.ids),
            frames.ToolDone(id=event.call_id, data=done, **cause.ids),
        ]

    def _pause_end(self, pause_id: str, decision: str, by: str, cause: _Cause) -> list[StreamFrame]:
        if pause_id not in self._pauses:
            return []
        self._pauses.remove(pause_id)
        data = frames.ResumedData(pause_id=pause_id, decision=decision, by=by)
        return [frames.DebuggerResumed(id=pause_id, data=data, **cause.ids)]

    def _summary(self, text: str, cause: _Cause) -> list[StreamFrame]:
        if self._call is None or not text:
            return []
        number = max(1, self._call.thinking_segments)
        own = self._call.message_id if number == 1 else f"{self._call.message_id}:{number}"
        data = frames.SummaryData(text=well_formed(text))
        return [frames.ThinkingSummary(id=f"{own}:thinking", data=data, **cause.ids)]


def _cut(text: str) -> Iterator[str]:
    for at in range(0, len(text), DELTA_MAX_CHARS):
        yield text[at : at + DELTA_MAX_CHARS]


class _Cause:
    """The ids that every frame of an inference carries."""

    __slots__ = ("ids", "inference_id", "origin", "retold", "turn_id")

    def __init__(self, origin: Origin | None) -> None:
        self.origin = origin
        self.retold = origin is not None and origin.retold
        self.inference_id = None if origin is None else origin.inference_id
        self.turn_id = None if origin is None else origin.turn_id
        self.ids = {"inference_id": self.inference_id, "turn_id": self.turn_id}


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


def _bounded(kind: str, props: bytes) -> bytes:
    if len(props) > APP_PROPS_MAX_BYTES:
        raise ValueError(
            f"the props of an event of the kind {kind!r} are {len(props)} bytes of JSON; tell at "
            f"most {APP_PROPS_MAX_BYTES}, or let its fold keep less"
        )
    return props


def _has(props: dict[str, Any], name: str, value: Any) -> bool:
    """Whether this prop is there and the same as JSON; for Python 1, 1.0 and True are."""
    return name in props and msgspec.json.encode(props[name]) == msgspec.json.encode(value)


def _json(value: Any) -> Any:
    """`value` as JSON can say it: strings well formed, what has no JSON form as its text."""
    try:
        return _encoded(value)
    except UnicodeEncodeError:
        pass
    except Exception:  # noqa: BLE001 - an app's value
        return _unprintable(value)
    try:
        # Python's own reads what it writes, a NaN too.
        return _encoded(json.loads(well_formed(json.dumps(value, default=str, ensure_ascii=False))))
    except Exception:  # noqa: BLE001 - as above
        return _unprintable(value)


def _encoded(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))


def _unprintable(value: Any) -> Any:
    """Not even its text can be had (a cycle, a __str__ that raises): says that much."""
    return {"unprintable": type(value).__name__} if isinstance(value, dict) else "[unprintable]"
