"""The one authorisation rule: who may do what to a conversation.

Every route, socket and admin action asks `can`; nothing else compares owners or permissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

Action: TypeAlias = Literal[
    "create",  # begin a conversation that does not exist
    "view",  # its state: profile, running, queue, sockets, counts; no text
    "transcript",  # what is said in it: page, timeline, socket, turns, frames
    "send",  # a prompt, in the owner's name and with the owner's tools
    "cancel",  # end an inference, empty the queue or take a prompt out of it
    "step",  # step mode on and off
    "decide",  # end a pause
    "drop",  # close its sockets
    "evict",  # unload it
]

ACTIONS: tuple[Action, ...] = get_args(Action)

OWNERS_ACTIONS: frozenset[Action] = frozenset(
    {"view", "transcript", "send", "cancel", "step", "decide"}
)
"""What an owner may do to the own conversation; the rest is the operator's."""

PERMISSIONS: Mapping[Action, str] = {
    "view": "sessions_app.view_livesession",
    "transcript": "sessions_app.transcript_livesession",
    "cancel": "sessions_app.cancel_livesession",
    "step": "sessions_app.step_livesession",
    "decide": "sessions_app.step_livesession",
    "drop": "sessions_app.cancel_livesession",
    "evict": "sessions_app.cancel_livesession",
}
"""The permission that lets staff do it in any conversation. No permission lets anybody send."""


class Owned(Protocol):
    """A conversation, as far as its access goes."""

    @property
    def owner(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody at one moment. `owner` is None for who has neither account nor visitor's session.

    `anywhere` is what the permissions of staff allow in everybody's conversations.
    """

    owner: str | None
    anywhere: frozenset[Action] = frozenset()


def can(identity: Identity, action: Action, conversation: Owned | None) -> bool:
    """Whether `identity` may do `action` to the conversation.

    None stands for no conversation in particular: `create` asks so, and who asks for another
    action learns whether it is allowed in everybody's.
    """
    if action == "create":
        return conversation is None and identity.owner is not None
    if action in identity.anywhere:
        return True
    return (
        conversation is not None
        and identity.owner is not None
        and identity.owner == conversation.owner
        and action in OWNERS_ACTIONS
    )


def account(user: object) -> Identity:
    """The identity of a Django account that is signed in. Asks the database for staff alone."""
    return Identity(f"user:{getattr(user, 'pk')}", permitted_anywhere(user))  # noqa: B009 - duck


def permitted_anywhere(user: object) -> frozenset[Action]:
    """What the account may do in everybody's conversations: nothing, unless it is active staff."""
    if not (getattr(user, "is_active", False) and getattr(user, "is_staff", False)):
        return frozenset()
    has_perm = getattr(user, "has_perm", lambda permission: False)
    return frozenset(action for action, name in PERMISSIONS.items() if has_perm(name))
