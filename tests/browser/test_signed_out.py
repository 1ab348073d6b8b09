"""Two tabs of one person: signing out in one is told in the other."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from tests.browser.axe import nothing_wrong
from tests.browser.conftest import OpenChat
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

PASSWORD = "a-password-that-nobody-guesses"
MAKE_ACCOUNT = f"""
from django.contrib.auth.models import User
User.objects.create_user("anna", password={PASSWORD!r})
"""


async def test_a_tab_that_is_signed_out_says_so_and_leads_back_to_where_it_was(
    server: LiveServer, visit: OpenChat
):
    server.manage("shell", "-v0", "-c", MAKE_ACCOUNT)
    chat = await visit(f"{server.url}/accounts/login/")

    async def log_in() -> None:
        await chat.page.get_by_label("Username").fill("anna")
        await chat.page.get_by_label("Password").fill(PASSWORD)
        async with chat.page.expect_navigation():
            await chat.page.get_by_label("Password").press("Enter")

    await log_in()
    await chat.say("what is this")
    await chat.ended()
    conversation = chat.page.url
    other = await visit(server.url, like=chat)
    await other.page.get_by_role("button", name="Log out").click()

    await expect(chat.connection).to_contain_text("You are signed out. Log in again to go on.")
    await expect(chat.page.get_by_role("button", name="Try now")).to_be_hidden()
    await chat.say("and what is that?")
    await expect(chat.error).to_have_text("You are signed out. Log in again to go on.")
    await expect(chat.prompt).to_have_value("and what is that?")

    asked: list[str] = []
    chat.page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    await chat.page.evaluate(
        "dispatchEvent(new Event('visibilitychange')); fetch('/api/chat/profiles').then(String)"
    )
    assert asked == ["/api/chat/profiles"]  # an answer would be that there are no conversations
    await expect(chat.row("what is this")).to_be_visible()
    await nothing_wrong(chat.page, "a tab that is signed out")

    await chat.page.get_by_role("link", name="Log in again").click()
    await log_in()
    assert chat.page.url == conversation
    await chat.live()
    await expect(chat.answers).to_have_count(1)
    await expect(chat.page.get_by_role("link", name="Log in again")).to_be_hidden()
