"""Proves chat/signals.py: what Django says about people reaches their open sockets at once.

What was not said is found by the guard (tests/chat/test_guard.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.db import transaction

from chat.guard import ACCESS_GROUP
from chat.hub import Hub
from tests.chat.people import GENTLE, Person, closed, heard, signed_in, visitor
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db(transaction=True)

Change = Callable[[Person], Awaitable[object]]


@pytest_asyncio.fixture
async def hub(plain_static: None) -> AsyncIterator[Hub]:
    async with running_hub() as running:
        yield running


@pytest.fixture
def conv() -> str:
    return str(uuid4())


async def _logs_out(person: Person) -> None:
    await person.submit("/accounts/logout/")


async def _is_deactivated(person: Person) -> None:
    assert person.user is not None
    person.user.is_active = False
    await person.user.asave()


async def _has_another_password(person: Person) -> None:
    assert person.user is not None
    person.user.password = "!another"
    await person.user.asave(update_fields=["password"])


async def _is_deleted(person: Person) -> None:
    assert person.user is not None
    await person.user.adelete()


async def _loses_the_session(person: Person) -> None:
    session = await Session.objects.aget(pk=person.client.cookies["sessionid"].value)
    await session.adelete()


async def _loses_every_session(person: Person) -> None:
    await Session.objects.all().adelete()


async def _signs_in_as_somebody_else(person: Person) -> None:
    other = await User.objects.acreate(username="other")
    await person.client.aforce_login(other)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_logs_out, 4501),
        (_is_deactivated, 4501),
        (_has_another_password, 4501),
        (_is_deleted, 4501),
        (_loses_the_session, 4010),
        (_loses_every_session, 4010),
        (_signs_in_as_somebody_else, 4010),
    ],
)
async def test_an_account_that_is_signed_out_is_told_in_every_tab_and_refused_from_then_on(
    hub: Hub, conv: str, change: Change, code: int
):
    anna = await signed_in("anna")
    async with anna.socket(conv) as one, anna.socket(f"{conv}.2") as two:
        await change(anna)
        codes = [await closed(tab) for tab in (one, two)]

    assert codes == [code, code]
    assert not await anna.may_enter(conv)
    assert (await anna.post("/api/chat/cancel", {"conv_id": conv})).status_code == 404


async def test_logging_out_ends_the_sockets_of_that_browser_alone(hub: Hub, conv: str):
    here = await signed_in("anna")
    elsewhere = Person(here.user)
    assert here.user is not None
    await elsewhere.client.aforce_login(here.user)
    stranger = await visitor()
    async with (
        here.socket(conv) as over,
        elsewhere.socket(conv) as goes_on,
        stranger.socket(f"{conv}.other") as untouched,
    ):
        await _logs_out(here)
        assert await closed(over) == 4501
        for tab in (goes_on, untouched):
            await tab.send_to(text_data="ping")
            assert await heard(tab) == "ws.pong"


async def test_a_visitor_who_logs_out_is_signed_out_too(hub: Hub, conv: str):
    bert = await visitor()
    async with bert.socket(conv) as tab:
        await _logs_out(bert)
        assert await closed(tab) == 4501


async def test_a_visitor_who_signs_in_comes_back_and_is_not_signed_out(hub: Hub, conv: str):
    bert = await visitor()
    user = await User.objects.acreate(username="bert", password="!")
    async with bert.socket(conv) as tab:
        await bert.client.aforce_login(user)
        assert await closed(tab) == 4010


async def test_a_session_that_is_given_another_key_comes_back_with_it(hub: Hub, conv: str):
    """So Django does for whoever changes a password, also somebody else's."""
    anna = await signed_in("anna")
    async with anna.socket(conv) as tab:
        session = await sync_to_async(lambda: anna.client.session)()
        await session.acycle_key()
        await session.asave()
        anna.client.cookies["sessionid"] = session.session_key or ""
        assert await closed(tab) == 4010
    async with anna.socket(conv):
        pass


async def _loses_the_permission(staff: User, group: Group) -> None:
    await staff.user_permissions.aclear()
    await staff.groups.aclear()


async def _is_no_staff(staff: User, group: Group) -> None:
    staff.is_staff = False
    await staff.asave()


async def _group_loses_the_permission(staff: User, group: Group) -> None:
    await group.permissions.aclear()


async def _leaves_the_group(staff: User, group: Group) -> None:
    await group.user_set.aremove(staff)


async def _group_is_deleted(staff: User, group: Group) -> None:
    await group.adelete()


@pytest.mark.parametrize(
    "change",
    [
        _loses_the_permission,
        _is_no_staff,
        _group_loses_the_permission,
        _leaves_the_group,
        _group_is_deleted,
    ],
)
async def test_staff_who_lose_the_permission_keep_what_is_their_own(
    hub: Hub, conv: str, change: Callable[[User, Group], Awaitable[None]]
):
    anna, staff = await visitor(), await signed_in("staff", is_staff=True)
    user, group = staff.user, await Group.objects.acreate(name="readers")
    assert user is not None
    await group.permissions.aadd(await Permission.objects.aget(codename="transcript_livesession"))
    await user.groups.aadd(group)
    async with (
        anna.socket(conv) as owners,
        staff.socket(conv) as guest,
        staff.socket(f"{conv}.own") as own,
    ):
        await change(user, group)
        assert await closed(guest) == 4503
        for tab in (owners, own):
            await tab.send_to(text_data="ping")
            assert await heard(tab) == "ws.pong"
    assert not await staff.may_enter(conv)
    assert (await staff.get(f"/api/timeline?conv_id={conv}")).status_code == 404


async def test_what_is_rolled_back_is_not_announced(hub: Hub):
    anna = await signed_in("anna")
    layer = get_channel_layer()
    assert layer is not None
    channel = await layer.new_channel()
    await layer.group_add(ACCESS_GROUP, channel)

    @sync_to_async
    def deactivate_and_take_it_back() -> None:
        assert anna.user is not None
        with transaction.atomic():
            anna.user.is_active = False
            anna.user.save()
            transaction.set_rollback(True)

    await deactivate_and_take_it_back()
    await _loses_the_session(anna)
    async with asyncio.timeout(GENTLE):
        assert (await layer.receive(channel))["type"] == "access.ended"
    await layer.group_discard(ACCESS_GROUP, channel)


async def test_what_django_does_not_say_is_found_by_the_next_check(settings, plain_static, conv):
    settings.WEBCHAT = {**settings.WEBCHAT, "ACCESS_CHECK_EVERY": 0.2}
    async with running_hub():
        anna, bert = await signed_in("anna"), await visitor()
        async with anna.socket(conv) as annas, bert.socket(f"{conv}.b") as berts:
            await User.objects.aupdate(is_active=False)
            assert await closed(annas) == 4501
            await Session.objects.aupdate(expire_date="2000-01-01T00:00Z")
            assert await closed(berts) == 4501
