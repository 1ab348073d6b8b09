"""Proves chat/identity.py: who somebody is. What they may do: tests/sessions_app/test_access.py.

Through the border, with real cookies: tests/border/test_identity.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpRequest

from chat.errors import LoginRequired
from chat.hub import Hub
from chat.identity import VISITOR_KEY, ensure_owner, identify
from sessions_app.access import Identity
from webchat_project.testing import running_hub


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    async with running_hub() as running:
        yield running


def request(visitor: str | None = None) -> HttpRequest:
    """A request of somebody who has not signed in."""
    made = HttpRequest()
    made.session = SessionStore()
    if visitor is not None:
        made.session[VISITOR_KEY] = visitor

    async def auser() -> AnonymousUser:
        return AnonymousUser()

    made.auser = auser
    return made


async def test_a_first_visit_gets_128_random_bits_and_keeps_them(hub: Hub):
    first = request()
    owner = await ensure_owner(first)

    kind, _, bits = owner.partition(":")
    assert kind == "visitor"
    assert len(bytes.fromhex(bits)) == 16
    assert await ensure_owner(first) == owner
    assert await ensure_owner(request()) != owner
    assert await identify(AnonymousUser(), first.session) == Identity(owner)


async def test_somebody_without_a_session_is_nobody(hub: Hub):
    assert await identify(AnonymousUser(), SessionStore()) == Identity(None)


async def test_where_signing_in_is_required_a_visitor_is_nobody(settings):
    settings.WEBCHAT = {**settings.WEBCHAT, "LOGIN_REQUIRED": True}
    async with running_hub():
        assert await identify(AnonymousUser(), request("a").session) == Identity(None)
        with pytest.raises(LoginRequired, match="/accounts/login/"):
            await ensure_owner(request("a"))


async def test_an_account_is_its_number_and_no_visitor(hub: Hub):
    account = await identify(User(pk=7, username="a"), request("a").session)

    assert account == Identity("user:7")


async def test_an_account_that_was_closed_is_no_account(hub: Hub):
    closed = User(pk=7, username="a", is_active=False, is_staff=True, is_superuser=True)

    assert await identify(closed, request("a").session) == Identity("visitor:a")
    assert await identify(closed, SessionStore()) == Identity(None)
