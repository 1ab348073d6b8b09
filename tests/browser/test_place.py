"""A person's place: the newest words from the first paint on, and never moved while one reads."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.chat import Chat
from tests.browser.conftest import OpenChat
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

SMALL = {"width": 800, "height": 500}
LINE = 32


async def long_conversation(server: LiveServer, visit: OpenChat) -> Chat:
    chat = await visit(server.url, viewport=SMALL)
    await chat.say("long 600")
    await chat.ended()
    return chat


async def top_of(chat: Chat, word: str) -> float:
    """Where that word of an answer stands in the window."""
    line = chat.answers.get_by_text(word)
    top: float = await line.evaluate("(line) => line.getBoundingClientRect().top")
    return top


async def scroll_up(page: Page, pixels: int) -> None:
    await page.mouse.move(400, 200)
    before = await page.evaluate("document.body.scrollTop")
    await page.mouse.wheel(0, -pixels)
    # An answer that grows moves the end by a line, before the wheel turns or after it.
    arrived = before - pixels + LINE
    await page.wait_for_function("(top) => document.body.scrollTop <= top", arg=arrived)


async def test_a_page_begins_at_its_end_before_any_script(server: LiveServer, visit: OpenChat):
    chat = await long_conversation(server, visit)
    plain = await visit(chat.page.url, cookies_of=chat, java_script_enabled=False, viewport=SMALL)
    await expect(plain.answers.get_by_text("word600")).to_be_in_viewport()
    await expect(plain.answers.get_by_text("word1 word2 ")).not_to_be_in_viewport()


async def test_the_page_follows_the_answer_until_the_person_scrolls_up(
    server: LiveServer, visit: OpenChat
):
    chat = await long_conversation(server, visit)
    jump = chat.page.get_by_role("button", name="Jump to latest")
    await expect(chat.answers.get_by_text("word600")).to_be_in_viewport()
    await expect(jump).to_be_hidden()
    await chat.say("slow 30")
    await expect(chat.answers.last).to_have_text(re.compile("Counting: 1"))
    await expect(chat.answers.last).to_be_in_viewport()
    await scroll_up(chat.page, 400)
    await expect(jump).to_be_visible()
    await chat.say("and this waits")
    await expect(chat.page.locator("[data-queue] li")).to_have_count(1)
    await scroll_up(chat.page, 400)
    before = await top_of(chat, "word560")
    await expect(chat.answers.last).to_have_text(re.compile("1 2 3"))
    await chat.stop_button.click()
    await chat.ended(count=3)
    assert await top_of(chat, "word560") == pytest.approx(before, abs=1)
    await jump.click()
    await expect(chat.inferences.last).to_be_in_viewport()
    await expect(chat.prompt).to_be_focused()
    await expect(jump).to_be_hidden()


async def test_what_sticks_to_an_edge_is_used_without_moving_the_page(
    server: LiveServer, visit: OpenChat
):
    chat = await long_conversation(server, visit)
    await scroll_up(chat.page, 600)
    before = await top_of(chat, "word480")
    await chat.page.get_by_role("button", name="Export").focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.get_by_role("link", name="Markdown")).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await chat.prompt.focus()
    await chat.page.keyboard.type("half a thou")
    assert await top_of(chat, "word480") == pytest.approx(before, abs=1)


async def test_a_reload_and_going_back_lead_to_where_one_was(server: LiveServer, visit: OpenChat):
    chat = await long_conversation(server, visit)
    await scroll_up(chat.page, 700)
    before = await top_of(chat, "word480")
    await chat.page.reload()
    await chat.live()
    assert await top_of(chat, "word480") == pytest.approx(before, abs=1)
    await chat.page.goto(server.url)
    await chat.page.go_back()
    await chat.live()
    assert await top_of(chat, "word480") == pytest.approx(before, abs=1)
    await chat.page.goto(chat.page.url)
    await chat.live()
    await expect(chat.answers.get_by_text("word600")).to_be_in_viewport()


EVERY_FRAME = """
window.__tops = [];
requestAnimationFrame(function frame() {
  const lines = [...document.querySelectorAll("[data-timeline] p")];
  const line = lines.find((line) => line.textContent.includes("WORD"));
  window.__tops.push(line ? Math.round(line.getBoundingClientRect().top) : null);
  if (window.__tops.length < 30) requestAnimationFrame(frame);
});
"""


@pytest.mark.parametrize("up", [0, 700])
async def test_from_the_first_frame_on_nothing_jumps(server: LiveServer, visit: OpenChat, up: int):
    chat = await long_conversation(server, visit)
    if up:
        await scroll_up(chat.page, up)
    word = "word480" if up else "word600"
    before = await top_of(chat, word)
    await chat.page.add_init_script(EVERY_FRAME.replace("WORD", word))
    await chat.page.reload()
    await chat.live()
    while len(tops := await chat.page.evaluate("window.__tops")) < 30:
        await chat.page.evaluate("new Promise(requestAnimationFrame)")
    assert {top for top in tops if abs(top - before) > 1} == set()


async def test_a_page_that_was_left_at_its_end_stays_there(server: LiveServer, visit: OpenChat):
    chat = await long_conversation(server, visit)
    await scroll_up(chat.page, 700)
    await chat.page.reload()
    await chat.page.get_by_role("button", name="Jump to latest").click()
    await chat.page.reload()
    await chat.live()
    await expect(chat.answers.get_by_text("word600")).to_be_in_viewport()


async def test_the_page_is_scrolled_by_keyboard_from_the_message_box(
    server: LiveServer, visit: OpenChat
):
    chat = await long_conversation(server, visit)
    await expect(chat.prompt).to_be_focused()
    await chat.page.keyboard.press("PageUp")
    await expect(chat.page.get_by_role("button", name="Jump to latest")).to_be_visible()
