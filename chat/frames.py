"""The wire types of docs/protocol.md and their codec. Pure.

A stream frame is one step of a conversation's history. Its body is encoded once; `envelope()`
puts the position in front of it, so that the same text serves every socket and the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import msgspec

PROTOCOL_VERSION = 1
APP_PREFIX = "app."

MessageStatus: TypeAlias = Literal["completed", "stopped", "failed"]
ToolStatus: TypeAlias = Literal["success", "error", "denied", "timeout", "cancelled", "skipped"]
InferenceStatus: TypeAlias = Literal["completed", "cancelled", "failed", "max_iterations", "lost"]


class _Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all payloads: camelCase keys, optional keys left out."""


class UsageData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class Metadata(_Data, frozen=True, kw_only=True):
    model: str
    stop_reason: str | None = None
    duration_ms: int | None = None
    usage: UsageData | None = None


class ChatMessageData(_Data, frozen=True, kw_only=True):
    role: Literal["user"]
    content: str
    turn_id: str
    idempotency_key: str


class InferenceStartedData(_Data, frozen=True, kw_only=True):
    turn_id: str
    profile: str
    model: str
    idempotency_key: str


class InferenceFinishedData(_Data, frozen=True, kw_only=True):
    status: InferenceStatus
    duration_ms: int
    error: str | None = None
    usage: UsageData | None = None


class StartData(_Data, frozen=True, kw_only=True):
    role: Literal["assistant", "thinking"]
    model: str


class DeltaData(_Data, frozen=True, kw_only=True):
    delta: str
    offset: int


class FinalData(_Data, frozen=True, kw_only=True):
    text: str
    status: MessageStatus


class SummaryData(_Data, frozen=True, kw_only=True):
    text: str


class ToolStartData(_Data, frozen=True, kw_only=True):
    name: str
    input: dict[str, Any] | str


class ToolPatch(_Data, frozen=True, kw_only=True):
    exec: bool | None = None
    input: dict[str, Any] | None = None
    progress: float | None = None
    note: str | None = None


class ToolDeltaData(_Data, frozen=True, kw_only=True):
    patch: ToolPatch


class ToolResultData(_Data, frozen=True, kw_only=True):
    result: str
    status: ToolStatus
    duration_ms: int
    custom_kind: str | None = None


class ToolDoneData(_Data, frozen=True, kw_only=True):
    status: ToolStatus


class PauseData(_Data, frozen=True, kw_only=True):
    pause_id: str
    phase: str
    summary: str
    deadline_ms: int
    on_timeout: str
    extra: dict[str, Any]


class ResumedData(_Data, frozen=True, kw_only=True):
    pause_id: str
    decision: str
    by: str


class AgentModeChange(
    msgspec.Struct, frozen=True, kw_only=True, rename={"previous": "from", "current": "to"}
):
    previous: str
    current: str
    analysis: str


class AgentModeData(_Data, frozen=True, kw_only=True):
    title: str
    data: AgentModeChange


class QueueItemData(_Data, frozen=True, kw_only=True):
    idempotency_key: str
    position: int
    preview: str


class QueueData(_Data, frozen=True, kw_only=True):
    depth: int
    items: list[QueueItemData]


class AppData(_Data, frozen=True, kw_only=True):
    """What an event changed: each prop replaces the entity's of that name, or removes it."""

    props: dict[str, Any]
    removed: tuple[str, ...] = ()


class LogData(_Data, frozen=True, kw_only=True):
    level: str
    message: str
    fields: dict[str, object]


class SessionUpdatedData(_Data, frozen=True, kw_only=True):
    profile: str
    fingerprint: str
    step_mode: bool


class _Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    id: str
    inference_id: str | None = None
    turn_id: str | None = None


class ChatMessage(_Frame, frozen=True, kw_only=True, tag="chat.message"):
    data: ChatMessageData


class InferenceStarted(_Frame, frozen=True, kw_only=True, tag="inference.started"):
    data: InferenceStartedData


class InferenceFinished(_Frame, frozen=True, kw_only=True, tag="inference.finished"):
    data: InferenceFinishedData
    metadata: Metadata


class LlmStart(_Frame, frozen=True, kw_only=True, tag="llm.start"):
    data: StartData


class LlmDelta(_Frame, frozen=True, kw_only=True, tag="llm.delta"):
    data: DeltaData


class LlmFinal(_Frame, frozen=True, kw_only=True, tag="llm.final"):
    data: FinalData
    metadata: Metadata


class ThinkingStart(_Frame, frozen=True, kw_only=True, tag="llm.thinking.start"):
    data: StartData


class ThinkingDelta(_Frame, frozen=True, kw_only=True, tag="llm.thinking.delta"):
    data: DeltaData


class ThinkingFinal(_Frame, frozen=True, kw_only=True, tag="llm.thinking.final"):
    data: FinalData
    metadata: Metadata


class ThinkingSummary(_Frame, frozen=True, kw_only=True, tag="llm.thinking.summary"):
    data: SummaryData


class ToolStart(_Frame, frozen=True, kw_only=True, tag="tool.start"):
    data: ToolStartData


class ToolDelta(_Frame, frozen=True, kw_only=True, tag="tool.delta"):
    data: ToolDeltaData


class ToolResult(_Frame, frozen=True, kw_only=True, tag="tool.result"):
    data: ToolResultData


class ToolDone(_Frame, frozen=True, kw_only=True, tag="tool.done"):
    data: ToolDoneData


class DebuggerPause(_Frame, frozen=True, kw_only=True, tag="debugger.pause"):
    data: PauseData


class DebuggerResumed(_Frame, frozen=True, kw_only=True, tag="debugger.resumed"):
    data: ResumedData


class AgentMode(_Frame, frozen=True, kw_only=True, tag="agent.mode"):
    data: AgentModeData


class QueueUpdated(_Frame, frozen=True, kw_only=True, tag="queue.updated"):
    data: QueueData


class Log(_Frame, frozen=True, kw_only=True, tag="log"):
    data: LogData


class SessionUpdated(_Frame, frozen=True, kw_only=True, tag="session.updated"):
    data: SessionUpdatedData


class App(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An app's own kind: `type` is `app.<kind>`, so it stands beside the closed union."""

    type: str
    id: str
    data: AppData
    inference_id: str | None = None
    turn_id: str | None = None

    @property
    def kind(self) -> str:
        return self.type.removeprefix(APP_PREFIX)


_CoreFrame: TypeAlias = (
    ChatMessage
    | InferenceStarted
    | InferenceFinished
    | LlmStart
    | LlmDelta
    | LlmFinal
    | ThinkingStart
    | ThinkingDelta
    | ThinkingFinal
    | ThinkingSummary
    | ToolStart
    | ToolDelta
    | ToolResult
    | ToolDone
    | DebuggerPause
    | DebuggerResumed
    | AgentMode
    | QueueUpdated
    | Log
    | SessionUpdated
)
StreamFrame: TypeAlias = _CoreFrame | App
FRAME_TYPES = tuple(str(frame.__struct_config__.tag) for frame in get_args(_CoreFrame))
"""The types of the core's stream frames; an app's own are `app.<kind>`."""

_encoder = msgspec.json.Encoder()
_core_decoder: msgspec.json.Decoder[_CoreFrame] = msgspec.json.Decoder(_CoreFrame)
_app_decoder = msgspec.json.Decoder(App)


def encode_body(frame: StreamFrame) -> str:
    """The frame without its position, as JSON text. Raises UnicodeEncodeError on surrogates."""
    return _encoder.encode(frame).decode()


def decode_body(body: str | bytes) -> StreamFrame:
    """The inverse of `encode_body`. Raises msgspec.ValidationError on anything else."""
    if isinstance(body, str):
        body = body.encode()
    # The type comes first: `encode_body` wrote it so.
    decoder = _app_decoder if body.startswith(b'{"type":"app.') else _core_decoder
    return decoder.decode(body)


def envelope(body: str, seq: int, stream_id: str | None = None) -> str:
    """The message a client gets: an encoded body with its position spliced in."""
    place = f'"seq":{seq},' if stream_id is None else f'"seq":{seq},"stream_id":"{stream_id}",'
    return f'{{"sem":true,"event":{{{place}{body[1:]}}}'


def body_of(text: str, seq: int, stream_id: str | None = None) -> str:
    """The inverse of `envelope`."""
    return "{" + text[len(envelope("", seq, stream_id)) - 1 : -1]


class _Typed(msgspec.Struct):
    type: str


class _Told(msgspec.Struct):
    event: _Typed


_type_decoder = msgspec.json.Decoder(_Told)


def type_of(text: str) -> str:
    """The type of an encoded frame, without decoding the rest of it."""
    return _type_decoder.decode(text).event.type


def utf8_size(text: str) -> int:
    """Bytes of `text` on the wire."""
    return len(text) if text.isascii() else len(text.encode())


def connection_frame(kind: str, entity_id: str, data: object) -> str:
    """A `ws.*` or `timeline.snapshot` message: for one socket, in no log, without a position."""
    event = {"type": kind, "id": entity_id, "data": data}
    return _encoder.encode({"sem": True, "event": event}).decode()


class BadCursor(ValueError):
    """The text is no cursor at all; one that merely cannot be proved is no error."""


_CURSOR = re.compile(r"(\d{1,16})\.(\d{1,16})(?:\.(\d{1,20}-\d{1,20}))?", re.ASCII)


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """What a client has seen: the last frame of one life of the log."""

    epoch: int
    seq: int
    stream_id: str | None = None

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Reads `<epoch>.<seq>[.<stream_id>]`; raises BadCursor with what was expected."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise BadCursor(
                f"cursor {text[:80]!r} is not of the form <epoch>.<seq>; send the cursor that "
                "ws.hello and your last frame gave you, or none for a snapshot"
            )
        return cls(int(match[1]), int(match[2]), match[3])

    def __str__(self) -> str:
        place = f"{self.epoch}.{self.seq}"
        return place if self.stream_id is None else f"{place}.{self.stream_id}"


class BadFrame(ValueError):
    """A client's message that is not what the protocol allows; the sentence is for the client."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Any of the three ping forms. `nonce` comes back in the pong."""

    nonce: str | int | None = None


@dataclass(frozen=True, slots=True)
class Pong:
    """The client has received everything up to `seq`."""

    seq: int | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Well-formed, and nothing to us."""


ClientFrame: TypeAlias = Ping | Pong | Ignored


def decode_client(text: str) -> ClientFrame:
    """What a client said. Raises BadFrame when it is neither a ping nor a JSON object."""
    if text.strip().lower() == "ping":
        return Ping()
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise BadFrame("the message is not JSON; send a JSON object or the word ping") from None
    if not isinstance(message, dict):
        raise BadFrame(f"got {_json_kind(message)}; expected a JSON object or the word ping")
    event = message.get("event") if message.get("sem") is True else message
    if not isinstance(event, dict):
        raise BadFrame('got "sem" without an "event" object; expected {"sem":true,"event":{…}}')
    kind = event.get("type")
    if not isinstance(kind, str):
        return Ignored()
    match kind.strip().lower():
        case "ws.ping" | "ping":
            nonce = event.get("nonce")
            return Ping(nonce if isinstance(nonce, str | int) and _short(nonce) else None)
        case "ws.pong":
            seq = event.get("seq")
            is_seq = type(seq) is int and 0 <= seq < 2**53
            return Pong(seq if is_seq else None)
    return Ignored()


def _short(nonce: str | int) -> bool:
    return abs(nonce) < 2**53 if isinstance(nonce, int) else len(nonce) <= 128


def _json_kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
