"""Proves chat/reread.py: who is behind many sessions, in a few queries."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.utils.timezone import now

from chat.identity import VISITOR_KEY
from chat.reread import identities, reread
from sessions_app.access import Identity
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db(transaction=True)


@pytest_asyncio.fixture(autouse=True)
async def _hub():
    async with running_hub():
        yield


@pytest.fixture(params=["db", "cached_db", "cache"])
def engine(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"


@sync_to_async
def stored(**data: Any) -> str:
    """The key of a session that holds this."""
    store = import_module(django_settings.SESSION_ENGINE).SessionStore()
    store.update(data)
    store.save()
    return str(store.session_key)


async def signed_in(user: User, **data: Any) -> str:
    """The key of a session that the account signed in with."""
    return await stored(
        **{
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
            HASH_SESSION_KEY: user.get_session_auth_hash(),
            **data,
        }
    )


async def behind(key: str) -> Identity | None:
    return (await identities({key})).get(key)


@pytest.mark.usefixtures("engine")
async def test_every_session_gets_its_own_answer_whatever_keeps_sessions():
    anna, bert = [await User.objects.acreate(username=name, password=name) for name in "ab"]
    a, b, c = await signed_in(anna), await signed_in(bert), await stored(**{VISITOR_KEY: "v"})
    found = await identities({a, b, c})

    assert found == {
        a: Identity(f"user:{anna.pk}"),
        b: Identity(f"user:{bert.pk}"),
        c: Identity("visitor:v"),
    }


@pytest.mark.usefixtures("engine")
async def test_a_session_that_is_gone_has_nobody():
    assert await behind("x" * 32) in (None, Identity(None))
    assert await identities(set()) == {}


async def test_a_session_past_its_time_has_nobody():
    key = await signed_in(await User.objects.acreate(username="a", password="!"))
    await Session.objects.aupdate(expire_date=now() - timedelta(seconds=1))

    assert await behind(key) is None


async def test_a_session_without_a_name_in_it_has_nobody():
    assert await behind(await stored(theme="dark")) == Identity(None)


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "another"}])
async def test_an_account_that_was_closed_or_has_another_password_is_nobody(change: dict[str, Any]):
    user = await User.objects.acreate(username="a", password="!")
    key = await signed_in(user, **{VISITOR_KEY: "v"})
    assert await behind(key) == Identity(f"user:{user.pk}")
    await User.objects.aupdate(**change)
    assert await behind(key) == Identity(None)


async def test_an_account_that_was_deleted_is_nobody():
    user = await User.objects.acreate(username="a", password="!")
    key = await signed_in(user)
    await user.adelete()

    assert await behind(key) == Identity(None)


async def test_a_session_signed_with_a_key_that_still_counts_is_kept(settings):
    user = await User.objects.acreate(username="a", password="!")
    key = await signed_in(user)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another"
    signed_anew = await signed_in(user, **{HASH_SESSION_KEY: "of no key"})

    assert await behind(key) == Identity(f"user:{user.pk}")
    assert await behind(signed_anew) == Identity(None)


async def test_staff_have_the_permissions_of_this_moment():
    user = await User.objects.acreate(username="a", password="!", is_staff=True)
    key = await signed_in(user)
    assert await behind(key) == Identity(f"user:{user.pk}")
    await user.user_permissions.aadd(await Permission.objects.aget(codename="view_livesession"))
    assert await behind(key) == Identity(f"user:{user.pk}", frozenset({"view"}))


async def test_where_signing_in_is_required_a_visitor_is_nobody(settings):
    settings.WEBCHAT = {**settings.WEBCHAT, "LOGIN_REQUIRED": True}
    async with running_hub():
        assert await behind(await stored(**{VISITOR_KEY: "v"})) == Identity(None)


async def test_a_hundred_sessions_take_two_queries(django_assert_num_queries):
    users = [User(username=f"u{n}", password="!") for n in range(100)]
    await User.objects.abulk_create(users)
    keys = {await signed_in(user) async for user in User.objects.all()}

    @sync_to_async
    def read() -> None:
        with django_assert_num_queries(2):
            assert len(reread(keys)) == 100

    await read()
