"""What transport asks of the session side. `sessions_app.manager.SessionManager` answers it."""

from __future__ import annotations

from typing import Protocol

from sessions_app.values import ProfileInfo, SessionInfo, Started


class Sessions(Protocol):
    """Every method may raise `sessions_app.inference.errors.Refused`; then nothing happened."""

    def profiles(self) -> tuple[ProfileInfo, ...]:
        """The configured profiles, in configured order."""

    async def find(self, conv_id: str) -> SessionInfo | None:
        """The conversation if it exists. Never creates one."""

    async def open(self, conv_id: str, *, owner: str, profile: str | None) -> SessionInfo:
        """The conversation, created for `owner` when absent.

        `profile` is for the creation only. Raises ProfileNotFound, Draining.
        """

    async def owned_by(self, owner: str) -> tuple[SessionInfo, ...]:
        """The owner's live conversations, newest activity first."""

    async def submit(
        self, conv_id: str, *, prompt: str, profile: str | None, idempotency_key: str
    ) -> Started:
        """Starts an inference in an open conversation; atomic.

        `profile` None keeps the conversation's own. Raises RunInProgress, ProfileNotFound,
        ConversationNotFound, Draining.
        """

    async def cancel(self, conv_id: str, *, inference_id: str | None = None) -> str:
        """Ends the active inference and returns its id at once. Idempotent until it has ended.

        Once this returned, the inference ends as `cancelled`. Raises NoActiveInference, also when
        `inference_id` is not the active one, and ConversationNotFound.
        """

    async def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        """Gives every conversation of `old_owner` to `new_owner`; returns their ids."""

    async def aclose(self) -> None:
        """Takes no more prompts, ends every inference as cancelled and waits for their ends."""
