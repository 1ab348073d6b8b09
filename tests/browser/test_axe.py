"""axe finds nothing wrong on any page, in any state, in either theme."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.axe import nothing_wrong
from tests.browser.conftest import OpenChat
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/nowhere/", "/c/nobody/"])
async def test_pages_of_their_own(server: LiveServer, visit: OpenChat, path: str):
    chat = await visit(f"{server.url}{path}")
    await nothing_wrong(chat.page, path)


async def test_a_refused_log_in(server: LiveServer, visit: OpenChat):
    chat = await visit(f"{server.url}/accounts/login/")
    await chat.page.get_by_label("Username").fill("nobody")
    await chat.page.get_by_label("Password").fill("wrong")
    await chat.page.get_by_role("button", name="Log in").click()
    await expect(chat.page.get_by_role("alert")).to_be_visible()
    await nothing_wrong(chat.page, "a refused log-in")


EVERY_CARD = (
    *("tools", "bad arguments", "unknown tool", "forbidden", "broken tool", "huge result"),
    *("think twice", "summary", "log", "app event", "markdown", "fail", "fail at once", "loop"),
)


async def test_every_card_that_has_ended(server: LiveServer, visit: OpenChat):
    chat = await visit(f"{server.url}/")
    await chat.page.get_by_role("combobox").select_option("agent")
    await chat.say("history")
    for prompt in EVERY_CARD:
        await chat.queue(prompt)
    await expect(chat.inferences).to_have_count(len(EVERY_CARD) + 1, timeout=60_000)
    await expect(chat.stop_button).to_be_hidden(timeout=30_000)
    await nothing_wrong(chat.page, "live cards, folded")
    await chat.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    await nothing_wrong(chat.page, "live cards, unfolded")
    await chat.page.reload()
    await nothing_wrong(chat.page, "cards of the server")


async def test_what_runs_waits_and_asks(server: LiveServer, visit: OpenChat):
    chat = await visit(f"{server.url}/")
    await chat.page.get_by_role("combobox").select_option("agent")
    await chat.say("approve")
    await expect(chat.page.locator('[data-card="debugger_pause"]')).to_be_visible()
    await chat.queue("slow 30")
    await expect(chat.page.locator("[data-queue] li")).to_have_count(1)
    await nothing_wrong(chat.page, "a pause, and a prompt that waits")
    await chat.page.set_viewport_size({"width": 320, "height": 640})
    await nothing_wrong(chat.page, "a pause on a small screen")
    await chat.page.emulate_media(forced_colors="active")
    # Colours are the system's there; axe reads those of the style sheet.
    await nothing_wrong(chat.page, "a pause in forced colours", but=("color-contrast",))
    await chat.page.emulate_media(forced_colors="none")
    await chat.page.get_by_role("button", name="Abort").click()
    await expect(chat.answers.last).to_contain_text("1 2")
    await nothing_wrong(chat.page, "an answer that streams")
    await chat.page.context.set_offline(True)
    await expect(chat.connection).not_to_have_attribute("data-state", "live")
    await nothing_wrong(chat.page, "offline")
    await chat.page.context.set_offline(False)
    await chat.live()
    await chat.stop_button.click()
    await chat.ended("cancelled", count=2)
    await nothing_wrong(chat.page, "a stopped answer")
