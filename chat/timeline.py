"""The fold of a conversation's frames: what a page shows. Pure.

One fold serves the page, the HTTP timeline, the socket's snapshot and the admin. Its law:
snapshot at n + frames after n = snapshot at the head, for every n.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, assert_never

import msgspec

from . import frames
from .frames import Cursor, StreamFrame

OWN_KINDS = frozenset(
    ("message", "inference", "tool_call", "tool_result", "debugger_pause", "agent_mode", "log")
)
"""The kinds of entities that are ours; every other one is an app's."""

SnapshotReason: TypeAlias = Literal["first", "epoch", "window", "ahead", "diverged", "slow"]


class Entity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One thing on the page. Its id is the frames' id, so a reload never doubles or moves it."""

    id: str
    kind: str
    created_at_ms: int
    updated_at_ms: int
    created_seq: int
    updated_seq: int
    props: dict[str, Any]  # camelCase keys per kind, PROTOCOL §6; only the fold writes them


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A conversation as it stands at `version`; entities in order of first appearance.

    `reason` says why a socket got it; the HTTP answer has none. `profile` and `step_mode` are the
    last `session.updated`'s, absent where there was none.
    """

    conv_id: str
    epoch: int
    version: int
    cursor: str
    server_time_ms: int
    running: bool
    queue_depth: int
    entities: list[Entity]
    queue: list[dict[str, Any]] = []
    profile: str | msgspec.UnsetType = msgspec.UNSET
    step_mode: bool | msgspec.UnsetType = msgspec.UNSET
    reason: SnapshotReason | msgspec.UnsetType = msgspec.UNSET


class TimelineState(msgspec.Struct, frozen=True, kw_only=True):
    """A fold as it is stored and gone on with."""

    version: int
    active_inference: str | None
    queue: list[dict[str, Any]]
    session: frames.SessionUpdatedData | None
    entities: list[Entity]


@dataclass(slots=True)
class _Card:
    kind: str
    created_at_ms: int
    created_seq: int
    updated_at_ms: int
    updated_seq: int
    props: dict[str, Any]
    parts: list[str] = field(default_factory=list)


class Timeline:
    """Folds frames in `seq` order. Each frame costs O(its own size)."""

    def __init__(self) -> None:
        self.version = 0
        self.active_inference: str | None = None
        self.queue: list[dict[str, Any]] = []
        self.session: frames.SessionUpdatedData | None = None
        self._cards: dict[str, _Card] = {}

    def pass_over(self, seq: int) -> None:
        """Takes the next frame's place without the frame, whose type nobody knows here."""
        assert seq == self.version + 1, f"frame {seq} passed over at version {self.version}"
        self.version = seq

    def fold(self, frame: StreamFrame, *, seq: int, at_ms: int) -> None:
        """Takes the next frame; `seq` must be `version + 1`."""
        assert seq == self.version + 1, f"frame {seq} folded onto version {self.version}"
        self.version = seq
        if type(frame) is frames.LlmDelta:  # nearly all of them, and the shortest way
            self._put(frame.id, "message", seq, at_ms, {}).parts.append(frame.data.delta)
            return
        match frame:
            case frames.LlmDelta(data=delta) | frames.ThinkingDelta(data=delta):
                self._put(frame.id, "message", seq, at_ms, {}).parts.append(delta.delta)
            case frames.ChatMessage(data=chat):
                props = {"role": "user", "content": chat.content, "streaming": False}
                self._put(frame.id, "message", seq, at_ms, props)
            case frames.InferenceStarted(data=started):
                self.active_inference = frame.id
                props = {"status": "running", "profile": started.profile, "model": started.model}
                self._put(frame.id, "inference", seq, at_ms, props)
            case frames.InferenceFinished(data=finished):
                self.active_inference = None
                props = {"status": finished.status, "durationMs": finished.duration_ms}
                if finished.error is not None:
                    props["error"] = finished.error
                if finished.usage is not None:
                    props["usage"] = msgspec.to_builtins(finished.usage)
                self._put(frame.id, "inference", seq, at_ms, props)
            case frames.LlmStart(data=start) | frames.ThinkingStart(data=start):
                props = {
                    "role": start.role,
                    "streaming": True,
                    "status": "streaming",
                    "metadata": {"model": start.model},
                }
                self._put(frame.id, "message", seq, at_ms, props)
            case (
                frames.LlmFinal(data=final, metadata=metadata)
                | frames.ThinkingFinal(data=final, metadata=metadata)
            ):
                props = {
                    "streaming": False,
                    "status": final.status,
                    "metadata": msgspec.to_builtins(metadata),
                }
                self._put(frame.id, "message", seq, at_ms, props).parts = [final.text]
            case frames.ThinkingSummary(data=summary):
                props = {"role": "thinking", "summary": summary.text}
                self._put(frame.id, "message", seq, at_ms, props)
            case frames.ToolStart(data=tool):
                props = {"name": tool.name, "input": tool.input, "status": "requested"}
                props["done"] = False
                self._put(frame.id, "tool_call", seq, at_ms, props)
            case frames.ToolDelta(data=delta):
                self._put(frame.id, "tool_call", seq, at_ms, _patched(delta.patch))
            case frames.ToolResult(data=result):
                props = {
                    "toolCallId": frame.id,
                    "result": result.result,
                    "status": result.status,
                    "durationMs": result.duration_ms,
                }
                if result.custom_kind is not None:
                    props["customKind"] = result.custom_kind
                self._put(f"{frame.id}:result", "tool_result", seq, at_ms, props)
            case frames.ToolDone(data=done):
                props = {"status": done.status, "done": True}
                self._put(frame.id, "tool_call", seq, at_ms, props)
            case frames.DebuggerPause(data=pause):
                props = {**msgspec.to_builtins(pause), "open": True}
                self._put(frame.id, "debugger_pause", seq, at_ms, props)
            case frames.DebuggerResumed(data=resumed):
                props = {"open": False, "decision": resumed.decision, "by": resumed.by}
                self._put(frame.id, "debugger_pause", seq, at_ms, props)
            case frames.AgentMode(data=mode):
                self._put(frame.id, "agent_mode", seq, at_ms, msgspec.to_builtins(mode))
            case frames.QueueUpdated(data=queue):
                self.queue = [msgspec.to_builtins(item) for item in queue.items]
            case frames.App(data=app):
                card = self._put(frame.id, frame.kind, seq, at_ms, dict(app.props))
                for name in app.removed:
                    card.props.pop(name, None)
            case frames.Log(data=log):
                props = {"level": log.level, "message": log.message, "fields": log.fields}
                self._put(frame.id, "log", seq, at_ms, props)
            case frames.SessionUpdated(data=session):
                self.session = session
            case _:
                assert_never(frame)

    def entities(self, since_version: int = 0) -> list[Entity]:
        """Copies of the entities updated after `since_version`, in order of first appearance."""
        return [
            _entity(id, card)
            for id, card in self._cards.items()
            if card.updated_seq > since_version
        ]

    def snapshot(
        self, conv_id: str, cursor: Cursor, *, since_version: int, now_ms: int
    ) -> Snapshot:
        """What is shown of it at `cursor`, which is its place in the log."""
        session = self.session
        return Snapshot(
            conv_id=conv_id,
            epoch=cursor.epoch,
            version=self.version,
            cursor=str(cursor),
            server_time_ms=now_ms,
            running=self.active_inference is not None,
            queue_depth=len(self.queue),
            queue=self.queue,
            profile=msgspec.UNSET if session is None else session.profile,
            step_mode=msgspec.UNSET if session is None else session.step_mode,
            entities=self.entities(since_version),
        )

    def state(self) -> TimelineState:
        return TimelineState(
            version=self.version,
            active_inference=self.active_inference,
            queue=list(self.queue),
            session=self.session,
            entities=self.entities(),
        )

    @classmethod
    def of(cls, state: TimelineState) -> Timeline:
        """The fold that goes on from a state: its law holds as if it had seen every frame."""
        timeline = cls()
        timeline.version = state.version
        timeline.active_inference = state.active_inference
        timeline.queue = list(state.queue)
        timeline.session = state.session
        for entity in state.entities:
            timeline._cards[entity.id] = _card(entity)
        return timeline

    def _put(self, id: str, kind: str, seq: int, at_ms: int, props: dict[str, Any]) -> _Card:
        card = self._cards.get(id)
        if card is None:
            card = self._cards[id] = _Card(kind, at_ms, seq, at_ms, seq, props)
        else:
            card.updated_at_ms, card.updated_seq = at_ms, seq
            card.props.update(props)
        return card


def _patched(patch: frames.ToolPatch) -> dict[str, Any]:
    props: dict[str, Any] = {}
    if patch.exec:
        props["status"] = "running"
    for name in ("input", "progress", "note"):
        value = getattr(patch, name)
        if value is not None:
            props[name] = value
    return props


def _card(entity: Entity) -> _Card:
    props = dict(entity.props)
    streamed = entity.kind == "message" and props.get("role") != "user"
    return _Card(
        kind=entity.kind,
        created_at_ms=entity.created_at_ms,
        created_seq=entity.created_seq,
        updated_at_ms=entity.updated_at_ms,
        updated_seq=entity.updated_seq,
        parts=[props.pop("content")] if streamed else [],
        props=props,
    )


def _entity(id: str, card: _Card) -> Entity:
    props = dict(card.props)
    if card.kind == "message":
        if len(card.parts) > 1:
            card.parts = ["".join(card.parts)]
        props.setdefault("content", card.parts[0] if card.parts else "")
        props.setdefault("streaming", False)
    return Entity(
        id=id,
        kind=card.kind,
        created_at_ms=card.created_at_ms,
        updated_at_ms=card.updated_at_ms,
        created_seq=card.created_seq,
        updated_seq=card.updated_seq,
        props=props,
    )
