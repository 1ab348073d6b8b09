"""Tools, pauses and the queue, as a person sees them."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, Route, expect

from tests.browser.chat import Chat, probe
from tests.browser.conftest import OpenChat
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


def card(chat: Chat, name: str) -> Locator:
    return chat.page.locator(f'[data-timeline] [data-card="{name}"]')


async def shows_the_same_however_it_came(chat: Chat) -> None:
    """By frames, by the server's page, by a snapshot."""
    live = await chat.cards()
    await chat.page.reload()
    await chat.live()
    assert await chat.cards() == live
    await probe(chat.page, "showSnapshot", f"/api/timeline?conv_id={chat.conv_id}")
    assert await chat.cards() == live


async def test_a_tool_call_shows_its_arguments_and_its_result(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("slow 3")
    await chat.ended()
    await chat.say("what time is it in Asia/Tokyo")
    await chat.ended(count=2)
    call = card(chat, "tool_call")
    await expect(call).to_have_attribute("data-status", "success")
    await expect(call.locator('[data-slot="name"]')).to_have_text("current_time")
    arguments = call.locator('[data-slot="input"]')
    await expect(arguments).to_be_hidden()
    await expect(arguments).to_have_text(re.compile("Asia/Tokyo"))
    result = call.locator('[data-card="tool_result"] pre')
    await expect(result).to_be_visible()
    await expect(result).to_have_text(re.compile(r"\+09:00"))
    assert await chat.card_ids() == [entity["id"] for entity in await chat.entities()]
    await shows_the_same_however_it_came(chat)


async def test_the_limit_of_steps_is_told_once(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("loop")
    await chat.ended("max_iterations")
    await expect(card(chat, "tool_call").last).to_have_attribute("data-status", "skipped")
    told = chat.page.locator("[data-timeline]").get_by_text("The limit of steps was reached.")
    await expect(told).to_have_count(1)
    await expect(told).to_be_visible()
    await shows_the_same_however_it_came(chat)


async def waiting(server: LiveServer, visit: OpenChat) -> Chat:
    """A conversation of the agent that waits for a person's decision."""
    chat = await visit(server.url)
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say("approve")
    await expect(card(chat, "debugger_pause")).to_contain_text("demo_send_note")
    return chat


async def test_a_person_lets_a_call_run(server: LiveServer, visit: OpenChat):
    chat = await waiting(server, visit)
    pause = card(chat, "debugger_pause")
    await expect(pause).to_contain_text("A note from the demo agent.")
    await expect(pause.get_by_role("timer")).to_have_text(re.compile(r"in \d+:\d\d"))
    second = await visit(chat.page.url, like=chat)
    await second.live()
    await pause.get_by_role("button", name="Continue").click()
    for tab in (chat, second):
        await tab.ended()
        decided = card(tab, "debugger_pause")
        await expect(decided.get_by_text("Continued", exact=True)).to_be_visible()
        await expect(decided).to_contain_text("(visitor)")
        await expect(decided.get_by_role("button")).to_have_count(0)
        await expect(card(tab, "tool_call")).to_have_attribute("data-status", "success")
    assert await chat.cards() == await second.cards()
    await shows_the_same_however_it_came(chat)


async def test_a_decision_that_comes_too_late_shows_the_one_that_counted(
    server: LiveServer, visit: OpenChat
):
    chat = await waiting(server, visit)

    async def decided_by_somebody_else(route: Route) -> None:
        answer = {
            "error": "this pause was decided already",
            "code": "already_decided",
            "pause": {"pause_id": "", "phase": "", "decision": "skip", "by": "carla"},
        }
        await route.fulfill(status=409, json=answer)

    await chat.page.route("**/api/debug/continue", decided_by_somebody_else)
    pause = card(chat, "debugger_pause")
    await pause.get_by_role("button", name="Abort").click()
    await expect(pause.get_by_text("Skipped", exact=True)).to_be_visible()
    await expect(pause).to_contain_text("(carla)")
    await expect(pause.get_by_role("button")).to_have_count(0)
    await chat.stop_button.click()
    await chat.ended("cancelled")


async def test_a_prompt_sent_meanwhile_waits_and_can_be_removed(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    queue = chat.page.locator("[data-queue]")
    await chat.say("slow 30")
    await expect(chat.answers).to_have_text(re.compile("1 2"))
    await expect(queue).to_be_hidden()
    for prompt in ("what is this", "help"):
        await chat.say(prompt)
        await expect(queue).to_contain_text(prompt)
        await expect(chat.prompt).to_have_value("")
    await expect(chat.stop_button).to_be_visible()
    await chat.page.reload()
    await chat.live()
    await expect(queue.get_by_role("listitem")).to_have_count(2)
    await queue.get_by_role("button", name="Remove: help").click()
    await expect(queue.get_by_role("listitem")).to_have_count(1)
    await chat.stop_button.click()
    await chat.ended(count=2)
    await expect(queue).to_be_hidden()
    await expect(chat.page.locator('[data-card="user"]').last).to_have_text(
        re.compile("what is this")
    )
