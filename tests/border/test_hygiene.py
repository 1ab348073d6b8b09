"""Who is signed out leaves every socket at once and is refused from then on; the answer goes on.

What Django announces: tests/chat/test_signals.py. What nobody announces: tests/chat/test_guard.py.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from tests.border.conftest import PASSWORD
from tests.client import Visitor
from tests.live import LiveServer

Accounts: TypeAlias = Callable[[], str]
Change: TypeAlias = Callable[[Visitor, Visitor, str], Awaitable[None]]


async def submit(who: Visitor, path: str, **fields: str) -> None:
    """A form of Django's; it must be taken."""
    token = {"csrfmiddlewaretoken": who.http.cookies["csrftoken"]}
    answer = await who.http.post(path, data={**fields, **token})
    assert answer.status_code == 302, answer.text


async def account_page(root: Visitor, name: str) -> str:
    listed = await root.http.get("/admin/auth/user/", params={"q": name})
    found = re.search(r"(/admin/auth/user/\d+/)change/", listed.text)
    assert found, listed.text
    return found[1]


async def logs_out(anna: Visitor, root: Visitor, name: str) -> None:
    await submit(anna, "/accounts/logout/")


async def change_account(root: Visitor, name: str, **fields: str) -> None:
    """Saves the account's page; what is not named there is taken away."""
    kept = {"username": name, "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    await submit(root, f"{await account_page(root, name)}change/", **kept, **fields)


async def is_deactivated(anna: Visitor, root: Visitor, name: str) -> None:
    await change_account(root, name)


async def is_given_another_password(anna: Visitor, root: Visitor, name: str) -> None:
    new = {"password1": f"{PASSWORD}!", "password2": f"{PASSWORD}!", "usable_password": "true"}
    await submit(root, f"{await account_page(root, name)}password/", **new)


async def is_deleted(anna: Visitor, root: Visitor, name: str) -> None:
    await submit(root, f"{await account_page(root, name)}delete/", post="yes")


@pytest.mark.parametrize(
    "change", [logs_out, is_deactivated, is_given_another_password, is_deleted]
)
async def test_who_is_signed_out_leaves_every_socket_and_is_refused_from_then_on(
    anna: Visitor, bert: Visitor, root: Visitor, accounts: Accounts, conv: str, change: Change
):
    name = accounts()
    await anna.sign_in(name, PASSWORD)
    await bert.sign_in("root", PASSWORD)
    session = anna.http.cookies["sessionid"]
    async with (
        anna.socket(conv) as one,
        anna.socket(f"{conv}.2") as two,
        bert.socket(conv) as watching,
    ):
        for tab in (one, two, watching):
            await tab.until("timeline.snapshot")
        await anna.chat("slow 30", conv)
        await watching.until("llm.delta")
        await change(anna, root, name)
        codes = [await one.closed(), await two.closed()]
        anna.http.cookies.set("sessionid", session, domain="127.0.0.1", path="/")
        refused = [
            await anna.post("/api/chat/cancel", {"conv_id": conv}),
            await anna.http.get("/api/timeline", params={"conv_id": conv}),
        ]
        handshake = await anna.refused(conv)
        goes_on = await watching.frame()
        await bert.post("/api/chat/cancel", {"conv_id": conv})
        await watching.until("inference.finished")

    assert codes == [4501, 4501]
    assert [answer.status_code for answer in refused] == [404, 404]
    assert handshake == 403
    assert goes_on["type"] == "llm.delta"


async def test_staff_who_lose_a_permission_leave_what_it_opened_and_nothing_else(
    anna: Visitor, bert: Visitor, root: Visitor, accounts: Accounts, conv: str
):
    name = accounts()
    form = (await root.http.get(f"{await account_page(root, name)}change/")).text
    permission = re.search(r'value="(\d+)">[^<]*Can read the words of any conversation', form)
    assert permission, form
    staff = {"is_active": "on", "is_staff": "on"}
    await change_account(root, name, **staff, user_permissions=permission[1])
    await bert.sign_in(name, PASSWORD)
    await anna.chat("slow 30", conv)
    async with bert.socket(conv) as guest, bert.socket(f"{conv}.own") as own:
        await guest.until("llm.delta")
        await own.until("timeline.snapshot")
        await change_account(root, name, **staff)
        assert await guest.closed() == 4503
        await own.send("ping")
        assert (await own.frame())["type"] == "ws.pong"
    await anna.post("/api/chat/cancel", {"conv_id": conv})

    assert await bert.refused(conv) == 403
    assert (await bert.http.get("/api/timeline", params={"conv_id": conv})).status_code == 404
    assert await bert.get("/api/conversations") != []


async def test_an_account_that_another_process_closes_is_refused_at_its_next_command(
    server: LiveServer, anna: Visitor, accounts: Accounts, conv: str
):
    name = accounts()
    await anna.sign_in(name, PASSWORD)
    await anna.hear("fail at once", conv)
    close = "from django.contrib.auth.models import User\n"
    close += f"User.objects.filter(username={name!r}).update(is_active=False)"
    server.manage("shell", "-v0", "-c", close)

    fresh = await anna.post("/chat", {"prompt": "fail at once"})
    assert (fresh.status_code, fresh.json()["code"]) == (403, "signed_out")
    assert (await anna.post("/chat", {"prompt": "x", "conv_id": conv})).status_code == 403
    assert (await anna.post("/api/chat/cancel", {"conv_id": conv})).status_code == 404
    assert await anna.refused(conv) == 403
    assert await anna.refused(f"{conv}.new") == 403
