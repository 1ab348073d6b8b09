"""Proves chat/identity.py: one rule for who somebody is and what they may see.

Through the border, with real cookies: tests/border/test_identity.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpRequest

from chat.errors import LoginRequired
from chat.hub import Hub
from chat.identity import PERMISSIONS, VISITOR_KEY, Identity, can, ensure_owner, identify
from tests.hub import running_hub


@dataclass(frozen=True)
class Conversation:
    owner: str


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
    nobody = await identify(AnonymousUser(), SessionStore())

    assert nobody.owner is None
    assert not can(nobody, "transcript", Conversation("visitor:a"))
    assert not can(nobody, "transcript", Conversation("user:1"))


async def test_a_visitor_sees_their_own_alone(hub: Hub):
    visitor = await identify(AnonymousUser(), request("a").session)

    assert can(visitor, "transcript", Conversation("visitor:a"))
    assert not can(visitor, "transcript", Conversation("visitor:b"))
    assert not can(visitor, "transcript", Conversation("user:a"))


async def test_where_signing_in_is_required_a_visitor_is_nobody(settings):
    settings.WEBCHAT = {**settings.WEBCHAT, "LOGIN_REQUIRED": True}
    async with running_hub():
        assert await identify(AnonymousUser(), request("a").session) == Identity(None)
        with pytest.raises(LoginRequired, match="/accounts/login/"):
            await ensure_owner(request("a"))


async def test_an_account_is_its_number_and_no_visitor(hub: Hub):
    account = await identify(User(pk=7, username="a"), request("a").session)

    assert account == Identity("user:7")
    assert not can(account, "transcript", Conversation("visitor:a"))


async def test_an_account_that_was_closed_is_no_account(hub: Hub):
    closed = User(pk=7, username="a", is_active=False, is_staff=True, is_superuser=True)

    assert await identify(closed, request("a").session) == Identity("visitor:a")
    assert await identify(closed, SessionStore()) == Identity(None)


@pytest.mark.parametrize(
    ("staff", "superuser", "everything"),
    [(True, True, True), (False, True, False), (True, False, False), (False, False, False)],
)
@pytest.mark.django_db(transaction=True)
async def test_only_staff_with_the_permission_may_do_it_anywhere(
    hub: Hub, staff: bool, superuser: bool, everything: bool
):
    user = await User.objects.acreate(username="a", is_staff=staff, is_superuser=superuser)
    somebody = await identify(user, SessionStore())

    assert somebody.owner == f"user:{user.pk}"
    assert somebody.anywhere == (frozenset(PERMISSIONS) if everything else frozenset())


@pytest.mark.parametrize(
    ("codename", "allowed"),
    [
        ("view_livesession", {"view"}),
        ("transcript_livesession", {"transcript", "send"}),
        ("cancel_livesession", {"cancel", "drop", "evict"}),
        ("step_livesession", {"step", "decide"}),
    ],
)
@pytest.mark.django_db(transaction=True)
async def test_each_permission_can_be_given_to_staff_who_are_no_superusers(
    hub: Hub, codename: str, allowed: set[str]
):
    @sync_to_async
    def give(user: User) -> None:
        user.user_permissions.add(Permission.objects.get(codename=codename))

    user = await User.objects.acreate(username="a", is_staff=True)
    await give(user)
    somebody = await identify(user, SessionStore())

    may = {action for action in PERMISSIONS if can(somebody, action, Conversation("user:0"))}
    assert may == allowed


async def test_an_owner_may_not_drop_or_evict_their_own():
    owner = Identity("visitor:a")

    may = {action for action in PERMISSIONS if can(owner, action, Conversation("visitor:a"))}
    assert may == {"view", "transcript", "send", "cancel", "step", "decide"}
