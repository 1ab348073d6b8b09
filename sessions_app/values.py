"""Frozen values the session side hands out. They may cross into transport; nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from .inference.turns import Outcome, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileInfo:
    """A named runtime as a client may see it."""

    slug: str
    title: str
    default_prompt: str
    model: str
    tools: tuple[str, ...]
    default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session at one moment. `owner` is `user:<pk>` or `visitor:<id>`.

    `paused`: what runs waits for a person's decision.
    """

    conv_id: str
    owner: str
    title: str
    profile: str
    running: bool
    paused: bool
    queue_depth: int
    step_mode: bool
    created_ms: int
    last_activity_ms: int


Policy: TypeAlias = Literal["queue", "reject", "interrupt"]
"""What to do with a prompt while an inference is active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """A prompt as a client gave it. `owner` asks.

    `conv_id` None: a new conversation. `profile` is what the request itself names; a conversation
    made for it gets that, or `new_profile`. `overrides` is the JSON given, unchecked.
    """

    owner: str
    prompt: str
    conv_id: str | None = None
    profile: str | None = None
    new_profile: str | None = None
    overrides: Mapping[str, object] | None = None
    policy: Policy = "queue"
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A prompt waits: `position` from 1, of `depth` prompts."""

    conv_id: str
    idempotency_key: str
    position: int
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A prompt was taken up: its `chat.message` and `inference.started` are in the log."""

    conv_id: str
    inference_id: str
    turn_id: str
    idempotency_key: str


Submitted: TypeAlias = Started | Queued


class _State(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What a session does, and since when."""

    since_ms: int

    @property
    def kind(self) -> str:
        """What tells the states apart as JSON."""
        return str(self.__struct_config__.tag)


class Idle(_State, frozen=True, kw_only=True, tag="idle"):
    """Nothing runs."""


class Running(_State, frozen=True, kw_only=True, tag="running"):
    """The model is at work. `silent_since_ms`: when the inference last said anything.

    `model_call` counts from 1 and is 0 before the first; `answering` once its first token came.
    """

    inference_id: str
    model_call: int
    answering: bool
    silent_since_ms: int


class ToolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that runs."""

    call_id: str
    name: str
    since_ms: int


class WaitingForTools(_State, frozen=True, kw_only=True, tag="tool"):
    """Tools run; the model waits for their results."""

    inference_id: str
    tools: tuple[ToolInfo, ...]


class PauseInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A pause that waits for a person, without the arguments or results that it shows."""

    pause_id: str
    phase: str
    summary: str
    since_ms: int
    deadline_ms: int
    on_timeout: str
    approval: bool
    permissions: tuple[str, ...]


class Paused(_State, frozen=True, kw_only=True, tag="paused"):
    """A person is asked, until the deadline."""

    inference_id: str
    until_ms: int


class Stopping(_State, frozen=True, kw_only=True, tag="stopping"):
    """The inference was asked to end, and has not."""

    inference_id: str


class Ending(_State, frozen=True, kw_only=True, tag="ending"):
    """The inference has said its end, which is being logged or persisted."""

    inference_id: str


class Unloaded(_State, frozen=True, kw_only=True, tag="unloaded"):
    """Only its turns are kept; the next prompt makes it live again."""


SessionState: TypeAlias = Idle | Running | WaitingForTools | Paused | Stopping | Ending | Unloaded
"""What a session does now. Closed; as JSON told apart by `kind`."""


class LiveSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session at one moment, for operators. It holds nothing that was said in it.

    `errors` counts failed inferences; `last_error` is the sentence people were shown for the last.
    """

    conv_id: str
    owner: str
    profile: str
    model: str
    fingerprint: str
    state: SessionState
    running_since_ms: int | None
    queue_depth: int
    step_mode: bool
    turns: int
    errors: int
    last_error: str | None
    created_ms: int
    last_activity_ms: int


class QueuedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that waits, without its words. `profile` is the one it asked for."""

    idempotency_key: str
    position: int
    since_ms: int
    profile: str | None
    overrides: bool


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's inferences run with. Middlewares by name: their configuration is theirs."""

    profile: str
    title: str
    model: str
    fingerprint: str
    middlewares: tuple[str, ...]
    tools: tuple[str, ...]
    tool_choice: str
    max_iterations: int
    approval: str
    allow_overrides: bool


StageKind: TypeAlias = Literal["queue", "model", "tool", "pause"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an inference's time. `end_ms` is None while it lasts."""

    kind: StageKind
    name: str
    start_ms: int
    end_ms: int | None


class InferenceStages(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one inference went, in milliseconds.

    `queued_ms` comes before its start. `first_token_ms` is from its start to its first token.
    Tools that run at once count once. `dropped` stages were more than are kept.
    """

    inference_id: str
    profile: str
    model: str
    fingerprint: str
    started_ms: int
    queued_ms: int
    first_token_ms: int | None
    model_ms: int
    model_calls: int
    tools_ms: int
    tool_calls: int
    paused_ms: int
    pauses: int
    total_ms: int
    outcome: Outcome | None
    error: str | None
    stages: tuple[Stage, ...]
    dropped: int


class SessionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One session in full, for operators, still without what was said in it.

    `inferences`: the last ones, oldest first, the running one among them.
    """

    session: LiveSession
    runtime: RuntimeInfo
    pauses: tuple[PauseInfo, ...]
    queue: tuple[QueuedInfo, ...]
    inferences: tuple[InferenceStages, ...]


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What was said in a session; declared secrets of tools are masked.

    `prompts` are the waiting ones by key, `pauses` what each open pause shows, by its id.
    """

    title: str
    system_prompt: str
    turns: tuple[Turn, ...]
    prompts: Mapping[str, str]
    pauses: Mapping[str, Mapping[str, Any]]


class Shown(msgspec.Struct, frozen=True):
    """A thing that people are shown: an entity of the protocol, by its kind, id and props."""

    kind: str
    id: str
    props: dict[str, Any]
