"""What transport asks of the session side. `sessions_app.manager.SessionManager` answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from sessions_app.values import (
    LiveSession,
    ProfileInfo,
    PromptRequest,
    SessionDetail,
    SessionInfo,
    Submitted,
    Transcript,
)

Decision: TypeAlias = Literal["continue", "edit", "skip", "abort"]


class Resolved(Protocol):
    """How a pause ended, and by whom."""

    @property
    def pause_id(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def decision(self) -> str: ...
    @property
    def by(self) -> str: ...


class LiveSessions(Protocol):
    """What the operator's desk asks. Reading makes nothing, loads nothing and touches nothing."""

    async def live(self) -> tuple[LiveSession, ...]:
        """Every live session. Each is whole; they may be moments apart."""

    async def inspect(self, conv_id: str) -> SessionDetail | None:
        """One session in full, live or unloaded, without a word of what was said in it."""

    async def transcript(self, conv_id: str, *, turns: int) -> Transcript | None:
        """What was said in it, with its last `turns`; declared secrets are masked."""

    async def evict(self, conv_id: str) -> None:
        """Unloads an idle session. Raises RunInProgress when busy, ConversationNotFound."""


class Sessions(LiveSessions, Protocol):
    """Every method may raise `sessions_app.inference.errors.Refused`; then nothing happened."""

    def profiles(self) -> tuple[ProfileInfo, ...]:
        """The configured profiles, in configured order."""

    async def find(self, conv_id: str) -> SessionInfo | None:
        """The conversation if it exists. Never creates one."""

    async def open(
        self,
        conv_id: str,
        *,
        owner: str,
        profile: str | None,
        known: SessionInfo | None = None,
    ) -> SessionInfo:
        """The conversation, created for `owner` when absent.

        `profile` is for the creation only. What `find` has said in this very step is `known`, and
        need not be asked for again. Raises ProfileNotFound, Draining.
        """

    async def owned_by(self, owner: str) -> tuple[SessionInfo, ...]:
        """The owner's live conversations, newest activity first."""

    async def submit(
        self, request: PromptRequest, *, admit: Callable[[], Awaitable[None] | None] = ...
    ) -> tuple[Submitted, bool]:
        """Starts or queues a prompt, in a conversation made when absent; atomic.

        `admit` is called for a new prompt, before anything happens for it, and may raise Refused.
        It may be awaited only where sessions are shared by processes.

        The answer, and whether it is the one an earlier request with this key got. Its frames are
        in the log by then. Raises ConversationNotFound for somebody else's, ProfileNotFound,
        OverridesNotAllowed, BadOverride, RunInProgress, QueueFull, KeyReused, Draining.
        """

    async def cancel(
        self, conv_id: str, *, inference_id: str | None = None, queue: bool = False
    ) -> str:
        """Ends the active inference and returns its id at once. Idempotent until it has ended.

        Once this returned, the inference ends as `cancelled`. `queue` also forgets what waits.
        Raises NoActiveInference, also when `inference_id` is not the active one, and
        ConversationNotFound.
        """

    async def remove_queued(self, conv_id: str, key: str) -> None:
        """Takes a waiting prompt out of the queue. Raises NotQueued, ConversationNotFound."""

    async def run_queued_now(self, conv_id: str, key: str) -> str:
        """Ends the active inference, whose id it returns; the waiting prompt is the next to run.

        Raises NotQueued, also when it was taken up already, and ConversationNotFound.
        """

    async def set_step_mode(self, conv_id: str, enabled: bool, *, by: str) -> None:
        """Switches step mode. Raises ConversationNotFound."""

    async def pause_permissions(self, conv_id: str, pause_id: str) -> frozenset[str]:
        """What whoever decides this pause must be permitted; empty when it does not wait."""

    async def decide(
        self,
        conv_id: str,
        pause_id: str,
        decision: Decision,
        *,
        by: str,
        edits: Mapping[str, Mapping[str, Any]] | None = None,
        message: str = "",
    ) -> Resolved:
        """Ends a pause. Raises UnknownPause, AlreadyDecided with how it ended, BadEdits."""

    async def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        """Gives every conversation of `old_owner` to `new_owner`; returns their ids."""

    async def drain(self, timeout: float) -> None:
        """Takes no more prompts and starts none that wait, for good.

        Returns when no inference runs, or after `timeout` seconds.
        """

    async def aclose(self) -> None:
        """Takes no more prompts, ends every inference as cancelled and waits for their ends."""
