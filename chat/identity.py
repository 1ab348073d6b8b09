"""Who is asking: from a request or a socket to an Identity, which `sessions_app.access` judges.

An owner is `user:<pk>` when signed in, else `visitor:<128 random bits kept inside the session>`.
"""

from __future__ import annotations

import secrets

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.http import Http404, HttpRequest

from sessions_app.access import Action, Identity, account, can
from sessions_app.values import SessionInfo

from .apps import hub
from .errors import LoginRequired, SignedOut

VISITOR_KEY = "visitor"


async def identify(user: AbstractBaseUser | AnonymousUser, session: SessionBase) -> Identity:
    """The identity behind a request or a socket.

    A session that was signed in with an account that is closed or gone is nobody's, and no
    visitor's.
    """
    if user.is_authenticated and user.is_active:
        is_staff = getattr(user, "is_staff", False)
        return await sync_to_async(account)(user) if is_staff else account(user)
    if await session.ahas_key(SESSION_KEY):
        return Identity(None)
    return visitor_identity(await session.aget(VISITOR_KEY))


def visitor_identity(visitor: str | None) -> Identity:
    """The identity of who has not signed in; `visitor` is what their session holds."""
    if visitor is None or hub().settings.login_required:
        return Identity(None)
    return Identity(f"visitor:{visitor}")


async def identity_of(request: HttpRequest) -> Identity:
    """The identity behind a request; makes none."""
    session = request.session
    if session.session_key is not None and not session.accessed:
        # In one visit to a thread, where session, account and permissions would take one each.
        identity = await hub().identities.behind(session.session_key)
        if identity.owner is not None:
            return identity
    return await identify(await request.auser(), session)


async def name_of(request: HttpRequest) -> str:
    """How a person is named to others: the user name, or `visitor`."""
    user = await request.auser()
    return user.get_username() if user.is_authenticated else "visitor"


async def ensure_owner(request: HttpRequest) -> str:
    """The request's owner; who comes for the first time gets a visitor's identity.

    Raises SignedOut when the request's session is over, so that nothing which somebody asked for is
    done as somebody else; LoginRequired when only accounts may enter.
    """
    identity = await identity_of(request)
    if identity.owner is not None:
        return identity.owner
    if hub().settings.login_required:
        raise LoginRequired("sign in first, at /accounts/login/")
    session = request.session
    came_with_one = settings.SESSION_COOKIE_NAME in request.COOKIES
    if await session.ahas_key(SESSION_KEY) or (came_with_one and session.is_empty()):
        raise SignedOut("your session is over; load the page again, and log in if you had")
    return await _new_visitor(session)


async def welcome(request: HttpRequest) -> str:
    """The owner of somebody who looks at a page; where a session is over, a new one begins.

    Raises LoginRequired when only accounts may enter.
    """
    try:
        return await ensure_owner(request)
    except SignedOut:
        await request.session.aflush()
        return await _new_visitor(request.session)


async def _new_visitor(session: SessionBase) -> str:
    visitor = secrets.token_hex(16)
    await session.aset(VISITOR_KEY, visitor)
    return f"visitor:{visitor}"


async def permitted(request: HttpRequest, action: Action, conv_id: str) -> SessionInfo:
    """The conversation, if the request may do that. Raises Http404 when absent or forbidden.

    The account, its password and its permissions are those of this moment.
    """
    info = await hub().sessions.find(conv_id)
    if info is None or not can(await identity_of(request), action, info):
        raise Http404("there is no such conversation")
    return info
