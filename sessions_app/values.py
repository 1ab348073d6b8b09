"""Frozen values the session side hands out. They may cross into transport; nothing else does."""

from __future__ import annotations

from dataclasses import dataclass


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
    created_ms: int
    last_activity_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A prompt was taken up: its `chat.message` and `inference.started` are in the log."""

    conv_id: str
    inference_id: str
    turn_id: str
    idempotency_key: str
