"""A tool with a permission runs only for a user who has it now."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, Group, Permission, User

from sessions_app.django_tools import my_account
from sessions_app.inference.events import publishing_to
from sessions_app.inference.executor import PreparedCall, ToolResult, ToolRun
from sessions_app.inference.tools import ToolRegistry, tool
from sessions_app.inference.turns import ToolCall
from sessions_app.permissions import PermissionToolExecutor
from sessions_app.testing import RecordingSink

pytestmark = pytest.mark.django_db(transaction=True)

VIEW = "auth.view_group"


@tool(permission=VIEW)
async def list_groups() -> str:
    return "all groups"


@tool
async def open_to_all() -> str:
    return "welcome"


@tool
def count_users() -> int:
    return User.objects.count()


class Desk:
    """Calls tools for a user."""

    def __init__(self, user: object | None) -> None:
        self._executor = PermissionToolExecutor()
        self._run = ToolRun(
            registry=ToolRegistry([list_groups, open_to_all, count_users, my_account]),
            session_id="s",
            inference_id="i",
            owner="o",
            user=user,
            ensure_running=lambda: None,
        )

    async def prepare(self, name: str) -> PreparedCall | ToolResult:
        call = ToolCall(call_id="c", name=name, arguments={})
        return await self._executor.prepare(call, self._run)

    async def execute(self, call: PreparedCall) -> ToolResult:
        with publishing_to(RecordingSink()):
            results: Sequence[ToolResult] = await self._executor.execute([call], self._run)
        return results[0]

    async def call(self, name: str) -> ToolResult:
        prepared = await self.prepare(name)
        return prepared if isinstance(prepared, ToolResult) else await self.execute(prepared)


@sync_to_async
def account(*permissions: str, is_superuser: bool = False) -> User:
    user = User.objects.create_user("anna", is_superuser=is_superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


async def test_who_has_the_permission_may():
    result = await Desk(await account("view_group")).call("list_groups")
    assert (result.status, result.text) == ("success", "all groups")


async def test_who_has_it_not_is_told_which_is_needed():
    result = await Desk(await account()).call("list_groups")
    assert result.status == "denied"
    assert result.text == "You need the permission 'auth.view_group' to use list_groups."


async def test_a_superuser_may():
    assert (await Desk(await account(is_superuser=True)).call("list_groups")).status == "success"


@pytest.mark.parametrize("nobody", [None, AnonymousUser(), "anna"])
async def test_a_visitor_may_not(nobody: object):
    result = await Desk(nobody).call("list_groups")
    assert result.status == "denied"
    assert result.text == "list_groups is only for people who have logged in."


async def test_a_tool_without_a_permission_is_open_to_all():
    assert (await Desk(None).call("open_to_all")).status == "success"


async def test_a_permission_taken_away_counts_at_once_also_for_a_call_that_waits():
    user = await account("view_group")
    desk = Desk(user)
    waiting = await desk.prepare("list_groups")
    assert isinstance(waiting, PreparedCall)
    assert await sync_to_async(user.has_perm)(VIEW)  # and Django keeps that with the object
    await user.user_permissions.aclear()
    assert (await desk.call("list_groups")).status == "denied"
    assert (await desk.execute(waiting)).status == "denied"


async def test_a_permission_given_counts_at_once():
    user = await account()
    assert not await sync_to_async(user.has_perm)(VIEW)
    await user.user_permissions.aadd(await Permission.objects.aget(codename="view_group"))
    assert (await Desk(user).call("list_groups")).status == "success"


async def test_a_closed_or_deleted_account_has_no_permission():
    user = await account("view_group")
    await User.objects.filter(pk=user.pk).aupdate(is_active=False)
    assert (await Desk(user).call("list_groups")).status == "denied"
    await User.objects.filter(pk=user.pk).adelete()
    assert (await Desk(user).call("list_groups")).status == "denied"


async def test_a_sync_tool_may_use_the_database():
    assert (await Desk(await account()).call("count_users")).text == "1"


async def test_my_account_tells_who_is_there():
    user = await account()
    await user.groups.aset([await Group.objects.acreate(name=name) for name in ("b", "a")])
    told = json.loads((await Desk(user).call("my_account")).text)
    assert told["username"] == "anna"
    assert told["groups"] == ["a", "b"]
    assert told["last_login"] is None
    assert told["date_joined"].startswith(str(user.date_joined.year))
    assert set(told) == {"username", "groups", "last_login", "date_joined"}


async def test_my_account_says_that_a_visitor_has_none():
    assert "nobody has logged in" in (await Desk(None).call("my_account")).text


async def test_my_account_says_that_an_account_is_gone():
    user = await account()
    await User.objects.filter(pk=user.pk).adelete()
    assert "no longer exists" in (await Desk(user).call("my_account")).text
