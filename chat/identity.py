"""Who is asking, and what they may see: the one authorisation rule of the transport.

An owner is `user:<pk>` when signed in, else `visitor:<128 random bits kept inside the session>`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.contrib.sessions.backends.base import SessionBase
from django.http import Http404, HttpRequest

from sessions_app.values import SessionInfo

from .apps import hub
from .errors import LoginRequired

VISITOR_KEY = "visitor"

Action: TypeAlias = Literal[
    "view", "transcript", "send", "cancel", "step", "decide", "drop", "evict"
]
"""What one may want of a conversation: its state, its words, to prompt, to end an inference, to
switch step mode, to decide a pause, to drop its sockets, to unload it."""

PERMISSIONS: Mapping[Action, str] = {
    "view": "sessions_app.view_livesession",
    "transcript": "sessions_app.transcript_livesession",
    "send": "sessions_app.transcript_livesession",
    "cancel": "sessions_app.cancel_livesession",
    "step": "sessions_app.step_livesession",
    "decide": "sessions_app.step_livesession",
    "drop": "sessions_app.cancel_livesession",
    "evict": "sessions_app.cancel_livesession",
}
"""The permission that lets staff do it in any conversation."""

OWNERS_ACTIONS: frozenset[Action] = frozenset(
    ("view", "transcript", "send", "cancel", "step", "decide")
)


class _Owned(Protocol):
    @property
    def owner(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """`owner` is None for somebody without a session; `anywhere` is what staff are permitted."""

    owner: str | None
    anywhere: frozenset[Action] = frozenset()


def can(identity: Identity, action: Action, conversation: _Owned) -> bool:
    """Whether somebody may do that with the conversation: the one rule of who may do what."""
    is_owner = identity.owner is not None and identity.owner == conversation.owner
    return action in identity.anywhere or (is_owner and action in OWNERS_ACTIONS)


async def identify(user: AbstractBaseUser | AnonymousUser, session: SessionBase) -> Identity:
    """The identity behind a request or a socket. Signed-in accounts must be active."""
    if user.is_authenticated and user.is_active:
        anywhere: frozenset[Action] = frozenset()
        if isinstance(user, PermissionsMixin) and getattr(user, "is_staff", False):
            anywhere = frozenset(
                [action for action, name in PERMISSIONS.items() if await user.ahas_perm(name)]
            )
        return Identity(f"user:{user.pk}", anywhere)
    visitor = await session.aget(VISITOR_KEY)
    if visitor is None or hub().settings.login_required:
        return Identity(None)
    return Identity(f"visitor:{visitor}")


async def identity_of(request: HttpRequest) -> Identity:
    """The identity behind a request; makes none."""
    return await identify(await request.auser(), request.session)


async def name_of(request: HttpRequest) -> str:
    """How a person is named to others: the user name, or `visitor`."""
    user = await request.auser()
    return user.get_username() if user.is_authenticated else "visitor"


async def ensure_owner(request: HttpRequest) -> str:
    """The request's owner; a first visit gets a visitor's identity in its session.

    Raises LoginRequired when WEBCHAT['LOGIN_REQUIRED'] is on and nobody is signed in.
    """
    identity = await identity_of(request)
    if identity.owner is not None:
        return identity.owner
    if hub().settings.login_required:
        raise LoginRequired("sign in first, at /accounts/login/")
    visitor = secrets.token_hex(16)
    await request.session.aset(VISITOR_KEY, visitor)
    return f"visitor:{visitor}"


async def permitted(request: HttpRequest, action: Action, conv_id: str) -> SessionInfo:
    """The conversation, if the request may do that. Raises Http404 when absent or forbidden."""
    info = await hub().sessions.find(conv_id)
    if info is None or not can(await identity_of(request), action, info):
        raise Http404("there is no such conversation")
    return info
