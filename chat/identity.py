"""Who is asking, and what they may see: the one authorisation rule of the transport.

An owner is `user:<pk>` when signed in, else `visitor:<128 random bits kept inside the session>`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.contrib.sessions.backends.base import SessionBase
from django.http import Http404, HttpRequest

from sessions_app.values import SessionInfo

from .apps import hub
from .errors import LoginRequired

VISITOR_KEY = "visitor"
VIEW_ANY = "sessions_app.view_livesession"


class _Owned(Protocol):
    @property
    def owner(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """`owner` is None for somebody without a session; `sees_all` for staff with the permission."""

    owner: str | None
    sees_all: bool = False

    def may_see(self, conversation: _Owned) -> bool:
        return self.sees_all or self.owner == conversation.owner


async def identify(user: AbstractBaseUser | AnonymousUser, session: SessionBase) -> Identity:
    """The identity behind a request or a socket. Signed-in accounts must be active."""
    if user.is_authenticated and user.is_active:
        is_operator = (
            isinstance(user, PermissionsMixin)
            and getattr(user, "is_staff", False)
            and await user.ahas_perm(VIEW_ANY)
        )
        return Identity(f"user:{user.pk}", is_operator)
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


async def visible(request: HttpRequest, conv_id: str) -> SessionInfo:
    """The conversation, if the request may see it. Raises Http404 when absent or forbidden."""
    info = await hub().sessions.find(conv_id)
    if info is None or not (await identity_of(request)).may_see(info):
        raise Http404("there is no such conversation")
    return info
