"""Each card, as it comes live, and the same however it comes."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, expect

from tests.browser.axe import nothing_wrong
from tests.browser.chat import Chat, probe
from tests.browser.conftest import OpenChat
from tests.browser.test_stream import Event, meddle
from tests.browser.test_tools import card
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

EVERY_CARD = (
    "summary",
    "log",
    "app event",
    "bad arguments",
    "mode",
    "fail at once",
)
"""Prompts whose answers have every card but the pause's, which test_pauses.py compares."""


async def agent(server: LiveServer, visit: OpenChat, prompt: str, **options: object) -> Chat:
    """A tab in which the agent has been asked that."""
    chat = await visit(server.url, **options)
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say(prompt)
    return chat


def slot(within: Locator, name: str) -> Locator:
    return within.locator(f'[data-slot="{name}"]')


async def test_every_card_is_the_same_by_frames_by_the_server_and_by_a_snapshot(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, EVERY_CARD[0])
    for count, prompt in enumerate(EVERY_CARD[1:], start=2):
        await expect(chat.inferences).to_have_count(count - 1)
        await expect(chat.stop_button).to_be_hidden(timeout=30_000)
        await chat.say(prompt)
    await chat.ended("failed", count=len(EVERY_CARD))
    live = await chat.cards()
    plain = await visit(chat.page.url, cookies_of=chat, java_script_enabled=False)
    assert await plain.cards() == live
    await probe(chat.page, "showSnapshot", f"/api/timeline?conv_id={chat.conv_id}")
    assert await chat.cards() == live
    await chat.page.reload()
    await chat.live()
    assert await chat.cards() == live


async def test_much_that_a_person_said_is_folded_until_it_is_asked_for(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    lines = "\n".join(f"line {number}" for number in range(1, 61))
    await chat.say("help")
    await chat.ended()
    await chat.say(lines)
    await chat.ended(count=2)
    bubbles = card(chat, "user").locator('[data-slot="text"]')
    more = chat.page.get_by_role("button", name="Show all")

    async def height() -> float:
        box = await bubbles.last.bounding_box()
        assert box is not None
        return box["height"]

    for _ in range(2):
        await expect(more).to_have_count(1)
        await expect(bubbles.last).to_have_text(lines)
        assert await height() < 400
        await more.focus()
        await chat.page.keyboard.press("Enter")
        less = chat.page.get_by_role("button", name="Show less")
        await expect(less).to_be_focused()
        assert await height() > 1000
        await less.click()
        assert await height() < 400
        await nothing_wrong(chat.page, "a long prompt, folded")
        await chat.page.reload()
        await chat.live()
    live = await chat.cards()
    plain = await visit(chat.page.url, cookies_of=chat, java_script_enabled=False)
    assert await plain.cards() == live
    await expect(plain.page.get_by_role("button", name="Show all")).to_be_hidden()
    unfolded = await plain.page.locator(".message-bubble").last.bounding_box()
    assert unfolded is not None
    assert unfolded["height"] > 1000


async def test_an_answer_ends_with_its_model_its_tokens_and_its_time(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("hang")
    await expect(chat.inferences.get_by_role("button", name="Copy")).to_be_hidden()
    await chat.stop_button.click()
    await chat.ended("cancelled")
    await chat.say("hello")
    await chat.ended(count=2)
    answer = chat.inferences.last
    facts = re.compile(r"^demo\d+ tokens in, \d+ out\d+(\.\d)? m?s$")
    await expect(answer.locator(".inference-facts")).to_have_text(facts)
    await expect(answer.get_by_role("button", name="Try again")).to_be_hidden()


async def test_an_answer_is_copied_as_its_markdown_before_and_after_a_reload(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url, permissions=["clipboard-read", "clipboard-write"])
    await chat.say("think twice")
    await chat.ended()
    said = [e["props"]["content"] for e in await chat.entities() if e["kind"] == "message"]
    roles = [e["props"]["role"] for e in await chat.entities() if e["kind"] == "message"]
    expected = "\n\n".join(
        text for text, role in zip(said, roles, strict=True) if role == "assistant"
    )
    announcer = chat.page.locator("[data-announcer]")
    for _ in ("live", "reloaded"):
        await chat.page.evaluate("navigator.clipboard.writeText('')")
        await chat.inferences.get_by_role("button", name="Copy").click()
        await expect(chat.inferences.get_by_role("button", name="Copied")).to_be_visible()
        await expect(announcer).to_have_text("Copied")
        assert await chat.page.evaluate("navigator.clipboard.readText()") == expected
        await chat.page.reload()
        await chat.live()


async def test_thinking_is_folded_and_says_how_long_it_took(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")
    held: list[Event] = []

    def hold_the_end(event: Event) -> list[Event]:
        if held or event["type"] == "llm.thinking.final":
            held.append(event)
            return []
        return [event]

    await meddle(chat.page, hold_the_end)
    await chat.page.goto(server.url)
    await chat.say("what is this")
    thinking = card(chat, "thinking")
    await expect(thinking.get_by_text("Thinking…")).to_be_visible()
    await expect(slot(thinking, "text")).to_be_hidden()
    await expect(slot(thinking, "text")).to_have_text(re.compile("script for that"))

    await chat.page.reload()
    await expect(thinking.get_by_text(re.compile(r"Thought for [\d.]+ m?s"))).to_be_visible()
    await thinking.locator("summary").click()
    await expect(slot(thinking, "text")).to_be_visible()


async def test_a_late_summary_stands_in_the_fold_s_line(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("summary")
    await chat.ended()
    await expect(card(chat, "thinking").locator("summary")).to_have_text(
        re.compile(r"Thought for [\d.]+ m?sThought about how to sum up\.$")
    )


async def test_a_tool_is_one_line_until_it_is_opened(server: LiveServer, visit: OpenChat):
    chat = await agent(
        server, visit, "calculate 6*7", permissions=["clipboard-read", "clipboard-write"]
    )
    await chat.ended()
    call = card(chat, "tool_call")
    await expect(slot(call, "name")).to_have_text("calc")
    await expect(slot(call, "preview")).to_have_text('{"expression": "6*7"}')
    await expect(slot(call, "status")).to_have_text("success")
    await expect(slot(call, "duration")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    await expect(slot(call, "result")).to_be_visible()
    arguments = call.locator(".tool-call .code-block")
    await expect(arguments).to_be_hidden()
    await call.locator("summary").first.click()
    await arguments.hover()
    await arguments.get_by_role("button", name="Copy").click()
    await expect(arguments.get_by_role("button", name="Copied")).to_be_visible()
    copied = await chat.page.evaluate("navigator.clipboard.readText()")
    assert copied == '{\n  "expression": "6*7"\n}'


async def test_a_long_result_is_folded(server: LiveServer, visit: OpenChat):
    chat = await agent(server, visit, "huge result")
    await chat.ended()
    result = card(chat, "tool_result")
    await expect(slot(result, "result")).to_be_hidden()
    await result.locator("summary").click()
    await expect(slot(result, "result")).to_contain_text("line 1 of 4000")


async def test_a_tool_says_how_far_it_is(server: LiveServer, visit: OpenChat):
    chat = await agent(server, visit, "progress")
    call = card(chat, "tool_call")
    await expect(call).to_have_attribute("data-status", "running")
    await expect(call.get_by_role("progressbar")).to_have_attribute("value", re.compile(r"0\.\d"))
    await expect(call.get_by_text(re.compile(r"step \d+ of 10"))).to_be_visible()
    await chat.ended()
    await expect(call.get_by_role("progressbar")).to_be_hidden()


@pytest.mark.parametrize(
    ("prompt", "status"),
    [("broken tool", "error"), ("forbidden", "denied"), ("unknown tool", "error")],
)
async def test_a_tool_that_did_not_succeed_says_so(
    server: LiveServer, visit: OpenChat, prompt: str, status: str
):
    chat = await agent(server, visit, prompt)
    await chat.ended()
    await expect(slot(card(chat, "tool_call"), "status")).to_have_text(status)
    await expect(slot(card(chat, "tool_result"), "result")).to_be_visible()


async def test_a_change_of_mode_says_from_where_to_where_and_why(
    server: LiveServer, visit: OpenChat
):
    chat = await agent(server, visit, "mode")
    await chat.ended()
    await expect(card(chat, "agent_mode")).to_have_text(re.compile(r"plan\s+→\s+act"))
    await expect(slot(card(chat, "agent_mode"), "analysis")).to_have_text("I was asked to switch.")


async def test_lines_of_the_log_have_their_level_and_fold_their_fields(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("log")
    await chat.ended()
    lines = card(chat, "log")
    for line, level in zip(await lines.all(), ("info", "warning", "error"), strict=True):
        await expect(line).to_have_attribute("data-level", level)
        await expect(slot(line, "level")).to_have_text(level)
    await expect(lines.nth(1).get_by_text("Details")).to_be_hidden()
    await lines.first.get_by_text("Details").click()
    await expect(slot(lines.first, "fields")).to_have_text('{\n  "lines": 3\n}')
