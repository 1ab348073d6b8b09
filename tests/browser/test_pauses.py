"""The agent waits for a person: what they see, write and decide, in every tab."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Locator, expect

from tests.browser.chat import Chat
from tests.browser.conftest import OpenChat
from tests.browser.test_cards import agent, slot
from tests.browser.test_stream import Event, meddle
from tests.browser.test_tools import card, shows_the_same_however_it_came
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


def pause(chat: Chat) -> Locator:
    return card(chat, "debugger_pause").last


def arguments(chat: Chat) -> Locator:
    return pause(chat).get_by_role("textbox", name=re.compile("^Arguments of"))


async def decide(chat: Chat, name: str) -> None:
    await pause(chat).get_by_role("button", name=name, exact=True).click()


async def test_arguments_are_checked_before_they_are_sent_and_by_the_server(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "approve")
    await expect(arguments(chat)).to_have_value('{\n  "text": "A note from the demo agent."\n}')
    for written, said in (("{ not json", "not JSON yet"), ("[1]", "expected a JSON object")):
        await arguments(chat).fill(written)
        await decide(chat, "Continue with changes")
        await expect(slot(pause(chat), "problem")).to_contain_text(said)
        await expect(arguments(chat)).to_have_attribute("aria-invalid", "true")
        await expect(arguments(chat)).to_be_focused()
    await arguments(chat).fill('{"text": 5}')
    await expect(slot(pause(chat), "problem")).to_be_empty()
    await decide(chat, "Continue with changes")
    await expect(slot(pause(chat), "error")).to_contain_text("5 is not of type 'string'")
    await expect(arguments(chat)).to_have_value('{"text": 5}')

    await arguments(chat).fill('{"text": "Mine."}')
    await decide(chat, "Continue with changes")
    await chat.ended()
    outcome = slot(pause(chat), "outcome")
    await expect(outcome.get_by_text("Continued with other arguments")).to_be_visible()
    await expect(outcome).to_contain_text("(visitor)")
    await expect(outcome).to_be_focused()
    await expect(slot(card(chat, "tool_call"), "preview")).to_have_text('{"text": "Mine."}')
    await shows_the_same_however_it_came(chat)


async def test_what_was_written_at_a_pause_is_there_after_a_reload_and_gone_with_the_pause(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "approve")
    await arguments(chat).fill('{"text": "Mine."}')
    await pause(chat).get_by_text("Say something to the model").click()
    message = pause(chat).get_by_role("textbox", name="What the model is told")
    await message.fill("Not today.")
    await chat.page.reload()
    await expect(arguments(chat)).to_have_value('{"text": "Mine."}')
    await expect(message).to_have_value("Not today.")
    await decide(chat, "Continue with changes")
    await chat.ended()
    await expect(slot(card(chat, "tool_call"), "preview")).to_have_text('{"text": "Mine."}')
    kept = await chat.page.evaluate("Object.keys(sessionStorage)")
    assert not [name for name in kept if name.startswith(("edit:", "message:"))], kept


async def test_what_was_refused_without_scripts_is_a_change_for_scripts_too(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "approve")
    token = chat.page.locator('#act [name="csrfmiddlewaretoken"]')
    go_on = pause(chat).locator('[data-decision="continue"]')
    answer = await chat.page.request.post(
        chat.page.url,
        form={
            "csrfmiddlewaretoken": await token.get_attribute("value") or "",
            "decision": await go_on.get_attribute("value") or "",
            await arguments(chat).get_attribute("name") or "": '{"text": 6}',
        },
        max_redirects=0,
    )
    assert answer.status == 303
    await chat.page.reload()
    await expect(arguments(chat)).to_have_value('{"text": 6}')
    await decide(chat, "Continue with changes")
    await expect(slot(pause(chat), "error")).to_contain_text("6 is not of type 'string'")
    await decide(chat, "Abort")
    await chat.ended("cancelled")
    await expect(pause(chat)).to_contain_text("A note from the demo agent.")


async def test_who_skips_may_tell_the_model_why(server: LiveServer, visit: OpenChat):
    chat = await agent(server, visit, "approve")
    await pause(chat).get_by_text("Say something to the model").click()
    await pause(chat).get_by_role("textbox", name="What the model is told").fill("Not today.")
    await decide(chat, "Skip")
    await chat.ended()
    await expect(slot(card(chat, "tool_result"), "result")).to_have_text("Not today.")
    await expect(card(chat, "tool_call")).to_have_attribute("data-status", "skipped")
    await shows_the_same_however_it_came(chat)


async def test_to_abort_ends_the_answer_and_the_pause_shows_what_was_proposed(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "approve")
    second = await visit(chat.page.url, like=chat)
    await arguments(second).fill('{"text": "half a thou')
    await decide(chat, "Abort")
    for tab in (chat, second):
        await tab.ended("cancelled")
        await expect(slot(pause(tab), "outcome").get_by_text("Aborted")).to_be_visible()
        await expect(pause(tab).locator("textarea, button, details")).to_have_count(0)
        await expect(pause(tab)).to_contain_text("A note from the demo agent.")
    assert await chat.cards() == await second.cards()
    await shows_the_same_however_it_came(chat)


async def test_the_list_of_conversations_says_where_a_decision_is_needed(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "approve")
    elsewhere = await visit("about:blank", like=chat)
    await expect(pause(chat)).to_be_visible()
    await elsewhere.page.goto(server.url)
    for tab in (chat, elsewhere):
        await expect(tab.row("approve").get_by_text("needs a decision")).to_be_visible()
        await expect(tab.row("approve").get_by_text("answering")).to_be_hidden()
    await decide(chat, "Abort")
    await chat.ended("cancelled")
    await expect(chat.row("approve").get_by_text("needs a decision")).to_be_hidden()


async def test_the_countdown_goes_by_the_server_s_clock(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")
    await chat.page.add_init_script("const now = Date.now; Date.now = () => now() + 3_600_000;")
    await chat.page.goto(server.url)
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say("approve")
    await expect(pause(chat).get_by_role("timer")).to_have_text(
        re.compile(r"^Refused by itself in (4:\d\d|5:00)$")
    )
    await decide(chat, "Abort")
    await chat.ended("cancelled")


async def test_a_countdown_is_to_the_nearest_second(server: LiveServer, visit: OpenChat):
    chat = await agent(server, visit, "hello")
    await chat.ended()
    server_ms: list[int] = []

    def give_30_seconds(event: Event) -> list[Event]:
        if event["type"] == "ws.hello":
            server_ms.append(event["data"]["serverTime"])
        if event["type"] == "debugger.pause":
            event["data"]["deadlineMs"] = server_ms[-1] + 30_400
        return [event]

    await meddle(chat.page, give_30_seconds)
    clock, now = chat.page.clock, datetime(2030, 1, 1, tzinfo=UTC)
    await clock.set_fixed_time(now)
    await chat.page.reload()
    await chat.live()
    await chat.say("approve")
    for passed, shown in ((0, "0:30"), (1_800, "0:29"), (30_000, "0:00")):
        await clock.set_fixed_time(now + timedelta(milliseconds=passed))
        timer = pause(chat).get_by_role("timer")
        await expect(timer).to_have_text(f"Refused by itself in {shown}")
    await decide(chat, "Abort")
    await chat.ended("cancelled", count=2)


async def test_a_snapshot_takes_nothing_away_that_a_person_has_written_or_opened(
    server: LiveServer, visit: OpenChat
):
    chat = await visit("about:blank")
    bent: list[Event] = []

    def bend_one(event: Event) -> list[Event]:
        if event["type"] == "queue.updated" and not bent:
            bent.append(event)
            return [{**event, "data": {}}]
        return [event]

    addresses = await meddle(chat.page, bend_one)
    await chat.page.evaluate("console.error = () => {}")
    await chat.page.add_init_script("console.error = () => {}")
    await chat.page.goto(server.url)
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say("approve")
    await card(chat, "thinking").locator("summary").click()
    await arguments(chat).fill("half a thou")
    await chat.say("and then this")
    await expect(chat.page.locator("[data-queue] li")).to_have_count(1)
    assert "cursor=" not in addresses[1]
    await chat.live()
    await expect(arguments(chat)).to_have_value("half a thou")
    await expect(slot(card(chat, "thinking"), "text")).to_be_visible()
    await decide(chat, "Abort")
    await chat.ended(count=2)
    assert sorted(await chat.card_ids()) == sorted(e["id"] for e in await chat.entities())


async def test_step_mode_stops_before_and_after_the_tools_in_every_tab(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "hello")
    await chat.ended()
    second = await visit(chat.page.url, like=chat)
    await second.live()
    switch, other = (tab.page.get_by_role("button", name="Step mode") for tab in (chat, second))
    await switch.click()
    for button in (switch, other):
        await expect(button).to_have_attribute("aria-pressed", "true")

    await chat.say("tools")
    await expect(arguments(second)).to_have_count(3)
    await decide(second, "Continue")
    await expect(pause(chat)).to_contain_text("3 results for the model")
    await expect(pause(chat)).to_contain_text("current_time success")
    await expect(pause(chat).get_by_role("button", name="Skip")).to_be_hidden()
    await expect(pause(chat).get_by_role("timer")).to_have_text(re.compile(r"Continues .* 0:\d\d"))
    await chat.page.reload()
    await expect(switch).to_have_attribute("aria-pressed", "true")
    await other.click()
    await chat.ended(count=2)
    await expect(switch).to_have_attribute("aria-pressed", "false")
    await expect(pause(chat).get_by_text("Step mode was switched off")).to_be_visible()
    await shows_the_same_however_it_came(chat)


async def test_without_scripts_arguments_are_edited_and_refused_by_a_form(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url, java_script_enabled=False)
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.prompt.fill("approve")
    await chat.send_button.click()
    while not await arguments(chat).count():
        await chat.page.reload()
    conversation = chat.page.url
    await arguments(chat).fill("{ not json")
    await decide(chat, "Continue")
    assert chat.page.url == conversation
    await expect(chat.error).to_contain_text("the arguments of demo_send_note are not JSON")
    await arguments(chat).fill('{"text": "Mine."}')
    await decide(chat, "Continue")
    while await chat.inferences.last.get_attribute("data-status") == "running":
        await chat.page.reload()
    await expect(pause(chat)).to_contain_text("Continued with other arguments")
    await expect(slot(card(chat, "tool_call"), "preview")).to_have_text('{"text": "Mine."}')
