"""Without scripts, without a mouse, on a small screen, in a reader's hands."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, expect

from tests.browser.conftest import OpenChat
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


async def test_without_scripts_the_pages_read_and_post(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url, java_script_enabled=False)
    await chat.prompt.fill("hang")
    await chat.send_button.click()
    await expect(chat.page.get_by_role("heading", level=1)).to_have_text("hang")
    conversation = chat.page.url
    await chat.page.locator("noscript a").click()
    assert chat.page.url == conversation
    await chat.ended("running")

    await chat.prompt.fill("and this?\n  indented")
    await chat.send_button.click()
    assert chat.page.url == conversation
    await expect(chat.page.locator("[data-queue] li")).to_contain_text("and this?")
    await expect(chat.prompt).to_have_value("")

    await chat.stop_button.click()
    assert chat.page.url == conversation
    while await chat.inferences.count() < 2:
        await chat.page.reload()
    await expect(chat.inferences.first).to_have_attribute("data-status", "cancelled")
    while await chat.inferences.last.get_attribute("data-status") == "running":
        await chat.page.reload()
    await expect(chat.stop_button).to_be_hidden()
    await expect(chat.error).to_be_empty()

    await chat.prompt.fill("markdown")
    await chat.send_button.click()
    await expect(chat.inferences).to_have_count(3)
    while await chat.inferences.last.get_attribute("data-status") == "running":
        await chat.page.reload()
    await expect(chat.answers.get_by_role("table")).to_be_visible()

    await chat.page.get_by_role("link", name="New").click()
    await chat.row("hang").get_by_role("link").click()
    assert chat.page.url == conversation


async def test_without_scripts_an_empty_prompt_is_refused_where_it_was_written(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url, java_script_enabled=False)
    await chat.prompt.fill("   ")
    await chat.send_button.click()
    assert chat.page.url == f"{server.url}/"
    await expect(chat.error).not_to_be_empty()


async def test_the_keyboard_is_enough(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    keyboard = chat.page.keyboard
    await expect(chat.prompt).to_be_focused()
    await keyboard.type("slow 30")
    await keyboard.press("Enter")
    await expect(chat.answers).to_have_text(re.compile("1 2"))
    await expect(chat.prompt).to_be_focused()
    await keyboard.type("one")
    await keyboard.press("Shift+Enter")
    await keyboard.type("two")
    await expect(chat.prompt).to_have_value("one\ntwo")
    while not await chat.stop_button.evaluate("(stop) => stop === document.activeElement"):
        await keyboard.press("Tab")
        assert await chat.page.evaluate("document.activeElement !== document.body")
    await keyboard.press("Space")
    await chat.ended("cancelled")
    await expect(chat.prompt).to_be_focused()
    await keyboard.press("Enter")
    await chat.ended(count=2)
    thinking = chat.page.locator("summary").last
    await thinking.focus()
    await keyboard.press("Enter")
    await expect(chat.page.locator("details[open] .prose")).to_be_visible()


async def test_a_pause_is_decided_by_keyboard_alone(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    keyboard = chat.page.keyboard
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.prompt.focus()
    await keyboard.type("approve")
    await keyboard.press("Enter")
    pause = chat.page.locator('[data-timeline] [data-card="debugger_pause"]')
    await expect(pause).to_be_visible()
    await expect(chat.page.locator("[data-announcer]")).to_contain_text("Your decision is needed.")
    await expect(chat.prompt).to_be_focused()
    await go_to(pause.get_by_role("textbox", name="Arguments of demo_send_note"))
    await keyboard.press("Control+A")
    await keyboard.type('{"text": "By hand."}')
    await go_to(pause.get_by_role("button", name="Continue with changes"), key="Tab")
    await keyboard.press("Enter")
    await chat.ended()
    await expect(pause.get_by_text("Continued with other arguments")).to_be_visible()
    await keyboard.press("Tab")
    assert await chat.page.evaluate("document.activeElement !== document.body")


async def go_to(element: Locator, key: str = "Shift+Tab") -> None:
    """Presses the key until that element has the focus."""
    page = element.page
    while not await element.evaluate("(element) => element === document.activeElement"):
        await page.keyboard.press(key)
        assert await page.evaluate("document.activeElement !== document.body")


async def test_what_somebody_else_decided_is_told_once(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say("approve")
    second = await visit(chat.page.url, like=chat)
    await second.live()
    told = await second.page.evaluate_handle(
        """() => {
          const told = [];
          const region = document.querySelector("[data-announcer]");
          new MutationObserver(() => told.push(region.textContent))
            .observe(region, { childList: true, characterData: true, subtree: true });
          return told;
        }"""
    )
    await chat.page.get_by_role("button", name="Skip").click()
    await second.ended()
    sentences = [sentence for sentence in await told.json_value() if "by visitor" in sentence]
    assert sentences == ["Skipped, by visitor."]


async def test_the_skip_link_of_a_conversation_leads_to_the_message_box(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("hello")
    await chat.ended()
    await chat.page.get_by_role("link", name="Skip to the message box").focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.prompt).to_be_focused()


async def test_the_skip_link_leads_to_the_content(server: LiveServer, visit: OpenChat):
    chat = await visit(f"{server.url}/accounts/login/")
    skip = chat.page.get_by_role("link", name="Skip to the content")
    await skip.focus()
    await expect(skip).to_be_in_viewport()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_scrolls_sideways_on_a_small_screen(
    server: LiveServer, visit: OpenChat, scheme: str
):
    options = {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme}
    chat = await visit(server.url, **options)
    await chat.say("markdown")
    await chat.ended()
    await chat.say(f"{'a' * 300} {'https://example.test/' * 12}")
    await chat.ended(count=2)
    await chat.say("fail")
    await chat.ended("failed", count=3)
    for url in (chat.page.url, f"{server.url}/", f"{server.url}/accounts/login/"):
        await chat.page.goto(url)
        widths = await chat.page.evaluate(
            "[document.documentElement, document.body].map((element) => element.scrollWidth)"
        )
        assert widths == [320, 320], url


async def test_words_run_in_their_own_direction_and_code_in_its_own(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url)
    await chat.say("\u0645\u0631\u062d\u0628\u0627 `x` y\n\n- \u0623\n\n```\ncode\n```\n\nEnglish")
    await chat.ended()
    answer = chat.answers.last

    async def direction(selector: str) -> str:
        found: str = await answer.locator(selector).first.evaluate(
            "(element) => getComputedStyle(element).direction"
        )
        return found

    assert await answer.evaluate("(element) => getComputedStyle(element).direction") == "rtl"
    assert await direction("ul") == "rtl"
    assert await direction("pre") == "ltr"
    assert await direction("p code") == "ltr"
    english = answer.get_by_text("English")
    assert await english.evaluate("(p) => getComputedStyle(p).unicodeBidi") == "plaintext"
    bubble = chat.page.locator(".message-bubble")
    assert await bubble.evaluate("(p) => getComputedStyle(p).direction") == "rtl"


async def test_nothing_moves_for_who_wants_no_motion(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url, reduced_motion="reduce")
    await chat.say("hang")
    await expect(chat.inferences.locator(".inference-running")).to_be_visible()
    assert await chat.page.evaluate("document.getAnimations().length") == 0
    await chat.stop_button.click()
    await chat.ended("cancelled")


async def test_a_reader_hears_the_changes_and_not_every_word(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("what is this")
    await expect(chat.page.locator("[data-announcer]")).to_contain_text("The answer is complete.")
    await expect(chat.page.get_by_role("log")).to_have_attribute("aria-live", "off")


async def test_a_prompt_too_long_for_the_cookie_still_comes_back(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    words = "ä" * 40_000
    await chat.prompt.fill(words)
    await chat.send_button.click()
    await expect(chat.error).not_to_be_empty()
    await expect(chat.prompt).to_have_value(words)
