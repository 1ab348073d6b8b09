"""Sending, waiting, running now, trying again: each once, whatever breaks."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Locator, Route, expect

from tests.browser.chat import Chat
from tests.browser.conftest import OpenChat
from tests.browser.test_tools import card
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


def waiting(chat: Chat) -> Locator:
    return chat.page.locator("[data-queue] li")


def said(chat: Chat) -> Locator:
    return card(chat, "user").locator('[data-slot="text"]')


async def test_a_waiting_prompt_is_run_now_in_every_tab(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("hang")
    for count, prompt in enumerate(("hello", "good morning"), start=1):
        await chat.say(prompt)
        await expect(waiting(chat)).to_have_count(count)
    second = await visit(chat.page.url, like=chat)
    await waiting(second).last.get_by_role("button", name="Run now: good morning").click()
    for tab in (chat, second):
        await tab.ended(count=3)
        await expect(tab.inferences.first).to_have_attribute("data-status", "cancelled")
        await expect(said(tab)).to_have_text(["hang", "good morning", "hello"])
        await expect(tab.page.locator("[data-queue]")).to_be_hidden()
    assert await chat.cards() == await second.cards()


async def test_the_queue_keeps_the_focus_of_who_works_in_it(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("hang")
    for count, prompt in enumerate(("one", "two", "three"), start=1):
        await chat.say(prompt)
        await expect(waiting(chat)).to_have_count(count)
    remove = chat.page.get_by_role("button", name="Remove: two")
    await remove.focus()
    await chat.page.keyboard.press("Enter")
    await expect(waiting(chat)).to_have_count(2)
    await expect(chat.page.get_by_role("button", name="Run now: one")).to_be_focused()
    for name in ("Remove: one", "Remove: three"):
        await chat.page.get_by_role("button", name=name).click()
    await expect(waiting(chat)).to_have_count(0)
    await expect(chat.prompt).to_be_focused()
    await chat.stop_button.click()


@pytest.mark.parametrize(("prompt", "status"), [("fail", "failed"), ("slow 30", "cancelled")])
async def test_what_failed_or_was_stopped_is_tried_again_once(
    server: LiveServer, visit: OpenChat, prompt: str, status: str
):
    chat = await visit(server.url)
    await chat.say(prompt)
    if status == "cancelled":
        await expect(chat.answers).to_have_text(re.compile("Counting: 1"))
        await chat.stop_button.click()
    await chat.ended(status)
    keys: list[str] = []

    async def first_is_lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        await (route.abort() if len(keys) == 1 else route.continue_())

    await chat.page.route("**/chat/default", first_is_lost)
    again = chat.inferences.get_by_role("button", name="Try again")
    await again.click()
    await expect(chat.error).to_contain_text("cannot be reached")
    await again.dblclick()
    await expect(chat.inferences).to_have_count(2)
    await expect(said(chat)).to_have_text([prompt, prompt])
    await expect(chat.prompt).to_be_focused()
    assert len(set(keys)) == 1
    await expect(chat.inferences.first.get_by_role("button", name="Try again")).to_be_hidden()
    if status == "cancelled":
        await chat.stop_button.click()
    await chat.ended(status, count=2)


async def test_a_double_click_sends_once(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.prompt.fill("hello")
    await chat.send_button.dblclick()
    await chat.ended()
    await chat.prompt.fill("good morning")
    await chat.send_button.dblclick()
    await chat.ended(count=2)
    await expect(said(chat)).to_have_text(["hello", "good morning"])


async def test_what_is_sent_before_the_last_prompt_has_arrived_follows_it(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("hello")
    await chat.ended()
    begun, gate = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        begun.set()
        await gate.wait()
        await route.continue_()

    await chat.page.route("**/chat/default", late)
    await chat.say("good morning")
    await begun.wait()
    await chat.prompt.press("Enter")
    await chat.say("good night")
    gate.set()
    await chat.ended(count=3)
    await expect(said(chat)).to_have_text(["hello", "good morning", "good night"])
    await expect(chat.prompt).to_have_value("")


async def test_a_lost_answer_is_tried_again_under_its_key_after_a_reload(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("hello")
    await chat.ended()
    keys: list[str] = []

    async def first_is_lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        await (route.abort() if len(keys) == 1 else route.continue_())

    await chat.page.route("**/chat/default", first_is_lost)
    await chat.say("good morning")
    await expect(chat.error).to_contain_text("cannot be reached")
    await chat.page.reload()
    await expect(chat.prompt).to_have_value("good morning")
    await chat.prompt.press("Enter")
    await chat.ended(count=2)
    assert keys[0] == keys[1]


async def test_a_prompt_that_arrived_although_its_answer_got_lost_is_no_draft_any_more(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("hello")
    await chat.ended()
    await chat.live()

    async def answer_is_lost(route: Route) -> None:
        await route.fetch()
        await chat.ended(count=2)
        await route.abort()

    await chat.page.route("**/chat/default", answer_is_lost)
    await chat.say("good morning")
    await expect(chat.prompt).to_have_value("")
    await chat.ended(count=2)
    await expect(chat.send_button).not_to_have_attribute("aria-disabled", "true")
    await expect(chat.error).to_be_empty()
    await chat.page.unroute("**/chat/default")
    await chat.page.reload()
    await expect(chat.prompt).to_have_value("")
    await expect(said(chat)).to_have_text(["hello", "good morning"])


async def test_the_profile_changes_in_mid_conversation_and_in_every_tab(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("hello")
    await chat.ended()
    second = await visit(chat.page.url, like=chat)
    await second.live()
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say("mode")
    await chat.ended(count=2)
    await expect(card(chat, "agent_mode")).to_be_visible()
    await expect(second.page.get_by_label("Profile")).to_have_value("agent")
    assert chat.page.url == second.page.url
    await second.page.get_by_label("Profile").select_option("default")
    await chat.say("mode act")
    await chat.ended(count=3)
    await expect(second.page.get_by_label("Profile")).to_have_value("default")
    await second.say("mode")
    await second.ended(count=4)
    await expect(card(second, "agent_mode")).to_have_count(1)


async def test_the_conversation_is_exported_in_two_forms(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("hello")
    await chat.ended()
    for name, form in (("Markdown", ".md"), ("JSON", ".json")):
        await chat.page.get_by_role("button", name="Export").click()
        async with chat.page.expect_download() as download:
            await chat.page.get_by_role("link", name=name).click()
        assert (await download.value).suggested_filename == f"hello{form}"
        await chat.page.keyboard.press("Escape")
