"""What an inference says while it runs. Transport turns these into frames.

The union is closed: `match` over `Event` with `assert_never`. An engine publishes `EngineEvent`s
through `publish()`; the runner and the session publish the rest. Sinks travel only in the context.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from .errors import ConfigurationError
from .turns import Outcome, ToolStatus
from .turns import well_formed as well_formed  # transport knows events alone

StopReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "cancelled", "error"
]
PausePhase: TypeAlias = Literal["after_inference", "after_tools"]
PauseDecision: TypeAlias = Literal[
    "continue", "edit", "skip", "abort", "timeout", "disabled", "cancelled"
]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

CORE_KINDS = frozenset(
    {
        *("message", "user", "assistant", "thinking"),
        *("inference", "tool_call", "tool_result", "debugger_pause", "agent_mode", "log", "other"),
    }
)
"""Kinds of entities, and roles of messages, that are not an app's to use."""

_APP_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """The next piece of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingSummary:
    """A late summary of the reasoning of this model call."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A line for the people in the conversation."""

    message: str
    level: LogLevel = "info"
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallFinished:
    """The provider's own end of one model call. An engine publishes it last, once."""

    stop_reason: StopReason = "stop"
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallRequested:
    """The model asked for a tool; its arguments are complete. Secrets are masked already."""

    call_id: str
    name: str
    input: Mapping[str, object] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """Execution begins, with these arguments."""

    call_id: str
    input: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress:
    """How far a call is: 0 to 1, and a short note."""

    call_id: str
    progress: float | None = None
    note: str = ""


NEVER_BEGAN = "Cancelled before it began: it did not run."
"""The result of a call whose inference ended before its ToolCallStarted."""

OUTCOME_UNKNOWN = "Ended with its inference; the outcome is unknown."
"""The result of a call that may have run, and of which nobody will say what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFinished:
    """The one end of a call. `custom_kind` names an app's own way to show the result."""

    call_id: str
    result: str
    status: ToolStatus
    duration_ms: int
    custom_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseOpened:
    """The inference waits for a person, until `deadline_ms` (Unix milliseconds)."""

    pause_id: str
    phase: PausePhase
    summary: str
    deadline_ms: int
    on_timeout: Literal["continue", "deny"]
    extra: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseClosed:
    """The one end of a pause. `by` is a user name, `visitor`, `timeout` or `system`."""

    pause_id: str
    decision: PauseDecision
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentModeSwitched:
    """The agent changed its mode."""

    title: str
    previous: str
    current: str
    analysis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEvent:
    """An app's own kind: frame `app.<kind>`, entity kind `<kind>`. A later one updates `id`.

    An id belongs to the first kind that used it: make it of the kind, as in `mood:<call id>`.
    Raises ConfigurationError for a kind that cannot be an app's, and for an empty id.
    """

    kind: str
    id: str
    props: Mapping[str, object]

    def __post_init__(self) -> None:
        check_app_kind(self.kind)
        if not self.id:
            raise ConfigurationError(
                f"an event of the kind {self.kind!r} has no id",
                hint="Give it the id of what it tells of; a later event with that id updates it.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A note on progress that has no frame of its own (`connecting`, `retrying`)."""

    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """What the provider answered, for the log. The inference's end says it to people."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCallStarted:
    """A model call begins. `message_id` is the id of its first text segment."""

    message_id: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTaken:
    """A prompt was taken up by an inference."""

    message_id: str
    content: str
    turn_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceStarted:
    inference_id: str
    turn_id: str
    profile: str
    model: str
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceFinished:
    """The one terminal event of an inference. `error` is a sentence, never a trace."""

    inference_id: str
    status: Outcome
    model: str
    stop_reason: StopReason
    duration_ms: int
    error: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedPrompt:
    """A prompt that waits. `preview` is its beginning."""

    idempotency_key: str
    preview: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUpdated:
    """The queue changed; `items` in the order they will run."""

    items: tuple[QueuedPrompt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdated:
    """The session's runtime changed."""

    profile: str
    fingerprint: str
    step_mode: bool


EngineEvent: TypeAlias = (
    TextDelta
    | ThinkingDelta
    | ThinkingSummary
    | Log
    | ModelCallFinished
    | ToolCallRequested
    | ToolCallStarted
    | ToolProgress
    | ToolCallFinished
    | PauseOpened
    | PauseClosed
    | AgentModeSwitched
    | AppEvent
    | Status
    | ProviderError
)
Event: TypeAlias = (
    EngineEvent
    | ModelCallStarted
    | PromptTaken
    | InferenceStarted
    | InferenceFinished
    | QueueUpdated
    | SessionUpdated
)

INTERNAL_EVENTS: tuple[type[Event], ...] = (Status, ProviderError)
"""Events that reach no client as a frame of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which inference caused an event.

    One that is `retold` ended in an earlier process: nobody knows how long anything in it took.
    """

    inference_id: str
    turn_id: str
    retold: bool = False


class EventSink(Protocol):
    """Where a session's events go."""

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        """Takes the event at once and never waits.

        Raises StreamStalled when more is waiting to be logged than the sink may hold. What the
        session itself says (a prompt taken, an inference started or finished, its queue, its
        runtime) is always taken.
        """

    async def flush(self) -> None:
        """Returns when all that was published before is in the log. Cancelling it is safe."""


class RunSink(Protocol):
    """The sink an engine sees: bound to its inference by the runner."""

    def publish(self, event: EngineEvent) -> None: ...


_current: ContextVar[RunSink] = ContextVar("webchat_run_sink")


def check_app_kind(kind: str) -> None:
    """Raises ConfigurationError unless `kind` may be an app's own."""
    if not _APP_KIND.fullmatch(kind):
        raise ConfigurationError(
            f"{kind[:80]!r} cannot be the kind of an app's event",
            hint="Use a letter, then up to 63 of A-Z a-z 0-9 _ -.",
        )
    if kind in CORE_KINDS:
        raise ConfigurationError(
            f"the kind {kind!r} is one of Webchat's own",
            hint=f"Use another name than {', '.join(sorted(CORE_KINDS))}.",
        )


def publish(event: EngineEvent) -> None:
    """Publishes an event of the running inference. Never waits.

    May be called in the thread of a sync tool: the event is taken up by the event loop, in order.
    Raises LookupError outside of an inference, StreamStalled when the log cannot follow.
    """
    _current.get().publish(event)


@contextmanager
def publishing_to(sink: RunSink) -> Iterator[None]:
    """Within the block `publish()` goes to `sink`; tasks started inside inherit it."""
    token = _current.set(sink)
    try:
        yield
    finally:
        _current.reset(token)
