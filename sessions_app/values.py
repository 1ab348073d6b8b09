"""Frozen values the session side hands out. They may cross into transport; nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias


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
    """A session at one moment. `owner` is `user:<pk>` or `visitor:<id>`."""

    conv_id: str
    owner: str
    title: str
    profile: str
    running: bool
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
