"""Who is asking: from a request or a socket to an Identity, which `sessions_app.access` judges.

An owner is `user:<pk>` when signed in, else `visitor:<128 random bits kept inside the session>`.
"""

from __future__ import annotations

import secrets

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.http import Http404, HttpRequest

from sessions_app.access import Action, Identity, account, can
from sessions_app.values import SessionInfo

from .apps import hub
from .errors import LoginRequired

VISITOR_KEY = "visitor"


async def identify(user: AbstractBaseUser | AnonymousUser, session: SessionBase) -> Identity:
    """The identity behind a request or a socket. Signed-in accounts must be active."""
    if user.is_authenticated and user.is_active:
        return await sync_to_async(account)(user)
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
    """The conversation, if the request may do that. Raises Http404 when absent or forbidden.

    The account, its password and its permissions are those of this moment.
    """
    info = await hub().sessions.find(conv_id)
    if info is None or not can(await identity_of(request), action, info):
        raise Http404("there is no such conversation")
    return info
