"""Proves chat/identity.py: who somebody is. What they may do: tests/sessions_app/test_access.py.

Through the border, with real cookies: tests/border/test_identity.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
import pytest_asyncio
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.utils.timezone import now

from chat.errors import LoginRequired
from chat.hub import Hub
from chat.identity import VISITOR_KEY, ensure_owner, identify
from sessions_app.access import Identity
from tests.chat.people import Person, closed, signed_in, visitor
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


async def test_a_session_that_names_an_account_is_no_visitors(hub: Hub):
    session = request("a").session
    session[SESSION_KEY] = "7"

    assert await identify(AnonymousUser(), session) == Identity(None)


async def _is_deactivated(user: User) -> None:
    user.is_active = False
    await user.asave()


async def _has_another_password(user: User) -> None:
    user.password = "!another"
    await user.asave()


async def _is_deleted(user: User) -> None:
    await user.adelete()


async def _loses_the_session(user: User) -> None:
    await Session.objects.all().adelete()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("plain_static")
@pytest.mark.parametrize(
    "change", [_is_deactivated, _has_another_password, _is_deleted, _loses_the_session]
)
async def test_what_was_asked_as_an_account_is_not_done_as_a_visitor(
    hub: Hub, change: Callable[[User], Awaitable[None]]
):
    anna, tab = await signed_in("anna"), await signed_in("tab")
    assert anna.user is not None
    tab.client.cookies.update(anna.client.cookies)  # a second tab of the same browser
    own = (await anna.post("/chat", {"prompt": "fail at once"})).json()["conv_id"]
    await change(anna.user)
    refused = await anna.post("/chat", {"prompt": "fail at once"})
    elsewhere = await tab.submit("/", prompt="what I wrote")
    shown = (await tab.get(elsewhere.headers["location"])).content.decode()

    assert (refused.status_code, refused.json()["code"]) == (403, "signed_out")
    assert (elsewhere.status_code, elsewhere.headers["location"]) == (303, "/")
    assert "your session is over" in shown
    assert "what I wrote" in shown
    assert (await tab.get(f"/c/{own}/")).status_code == 404
    assert (await tab.submit("/", prompt="fail at once")).headers["location"] != "/"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("plain_static")
async def test_a_session_that_is_over_forged_or_changed_opens_nothing(hub: Hub):
    anna = await signed_in("anna")
    key = anna.client.cookies["sessionid"].value
    assert await anna.may_enter("a")

    async def is_refused(person: Person) -> bool:
        answer = await person.post("/api/chat/cancel", {"conv_id": "a"})
        return answer.status_code == 404 and not await person.may_enter("a")

    for forged in (f"{key}x", key[:-1], "../../etc/passwd", "x" * 4000, "visitor:1"):
        stranger = Person()
        stranger.client.cookies["sessionid"] = forged
        assert await is_refused(stranger), forged
    data = (await Session.objects.aget(pk=key)).session_data
    await Session.objects.filter(pk=key).aupdate(session_data=f"{data}x")
    assert await is_refused(anna)
    expired = now() - timedelta(seconds=1)
    await Session.objects.filter(pk=key).aupdate(session_data=data, expire_date=expired)
    assert await is_refused(anna)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("plain_static")
async def test_who_knew_the_visitors_session_has_nothing_of_the_account(hub: Hub):
    anna, thief = await visitor(), Person()
    thief.client.cookies["sessionid"] = anna.client.cookies["sessionid"].value
    conv_id = (await anna.post("/chat", {"prompt": "fail at once"})).json()["conv_id"]
    async with thief.socket(conv_id) as socket:
        await anna.client.aforce_login(await User.objects.acreate(username="anna"))
        assert await closed(socket) == 4010

    assert not await thief.may_enter(conv_id)
    assert (await thief.get(f"/api/timeline?conv_id={conv_id}")).status_code == 404
    assert await anna.may_enter(conv_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("plain_static")
async def test_staff_who_read_are_offered_nothing_to_write(hub: Hub):
    anna, reader = await visitor(), await signed_in("r", "transcript_livesession", is_staff=True)
    conv_id = (await anna.post("/chat", {"prompt": "fail at once"})).json()["conv_id"]
    own, others = [(await who.get(f"/c/{conv_id}/")).content.decode() for who in (anna, reader)]

    assert "reading somebody else" not in own
    assert re.search(r"<textarea[^>]* disabled", others)
    assert re.search(r'data-slot="send" hidden', others)
