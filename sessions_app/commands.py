"""What one process asks another to do with a session it owns, and what that answers. As JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from .inference import errors
from .inference.errors import AlreadyDecided, Refused
from .inference.steps import PersonDecision, Resolution
from .values import (
    PromptRequest,
    Queued,
    SessionDetail,
    SessionInfo,
    Started,
    Submitted,
    Transcript,
)


class _Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb", omit_defaults=True):
    """A verb of SessionManager for one conversation."""


class Open(_Command, frozen=True, kw_only=True, tag="open"):
    owner: str
    profile: str | None


class Find(_Command, frozen=True, kw_only=True, tag="find"):
    """For a conversation that only the app has kept."""


class Submit(_Command, frozen=True, kw_only=True, tag="submit"):
    """`name` is the request as the client gave it, before it had a conversation."""

    request: PromptRequest
    name: str


class Cancel(_Command, frozen=True, kw_only=True, tag="cancel"):
    inference_id: str | None = None
    queue: bool = False


class RemoveQueued(_Command, frozen=True, kw_only=True, tag="remove"):
    key: str


class RunQueuedNow(_Command, frozen=True, kw_only=True, tag="run_now"):
    key: str


class SetStepMode(_Command, frozen=True, kw_only=True, tag="step_mode"):
    enabled: bool
    by: str


class PausePermissions(_Command, frozen=True, kw_only=True, tag="pause_permissions"):
    pause_id: str


class Decide(_Command, frozen=True, kw_only=True, tag="decide"):
    pause_id: str
    decision: PersonDecision
    by: str
    edits: Mapping[str, Mapping[str, Any]] | None = None
    message: str = ""


class Inspect(_Command, frozen=True, kw_only=True, tag="inspect"):
    pass


class ReadTranscript(_Command, frozen=True, kw_only=True, tag="transcript"):
    turns: int


class Evict(_Command, frozen=True, kw_only=True, tag="evict"):
    pass


class GiveTo(_Command, frozen=True, kw_only=True, tag="give_to"):
    """The conversation is another owner's from here on, if it was `old_owner`'s."""

    old_owner: str
    new_owner: str


Command: TypeAlias = (
    Open
    | Find
    | Submit
    | Cancel
    | RemoveQueued
    | RunQueuedNow
    | SetStepMode
    | PausePermissions
    | Decide
    | Inspect
    | ReadTranscript
    | Evict
    | GiveTo
)


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A command on its way. `sender` is the process that waits for its answer."""

    id: str
    sender: str
    command: Command


class SubmitAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    replayed: bool
    started: Started | None = None
    queued: Queued | None = None

    @property
    def submitted(self) -> Submitted:
        submitted = self.started or self.queued
        assert submitted is not None
        return submitted


ANSWERS: Mapping[type[_Command], Any] = {
    Open: SessionInfo,
    Find: SessionInfo | None,
    Submit: SubmitAnswer,
    Cancel: str,
    RemoveQueued: None,
    RunQueuedNow: str,
    SetStepMode: None,
    PausePermissions: frozenset[str],
    Decide: Resolution,
    Inspect: SessionDetail | None,
    ReadTranscript: Transcript | None,
    Evict: None,
    GiveTo: bool,
}
"""What each command is answered with, where it is not refused."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Refused on its way: the name of its class and its sentence."""

    error: str
    message: str
    resolution: Resolution | None = None

    @classmethod
    def of(cls, refused: Refused) -> Refusal:
        return cls(
            error=type(refused).__name__,
            message=str(refused),
            resolution=refused.resolution if isinstance(refused, AlreadyDecided) else None,
        )

    def raised(self) -> Refused:
        """The Refused again, or its nearest known kin."""
        if self.resolution is not None:
            return AlreadyDecided(self.resolution)
        kind = getattr(errors, self.error, Refused)
        return kind(self.message) if issubclass(kind, Refused) else Refused(self.message)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the mail of that id."""

    id: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    refusal: Refusal | None = None
