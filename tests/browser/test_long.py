"""Long conversations and long answers: what is out of sight costs nothing, and is all there."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.chat import Chat, probe
from tests.browser.conftest import OpenChat
from tests.browser.test_place import EVERY_FRAME, SMALL, scroll_up, top_of
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

PROMPTS = 9
"""Two cards each: the first prompts stand in a part of the page that is not its last."""

COPIES = 100

AS_LONG_AS_HUNDREDS_OF_MESSAGES = """(copies) => {
  const [first] = document.querySelectorAll(".timeline-part");
  for (let copy = 0; copy < copies; copy += 1) first.before(first.cloneNode(true));
}"""

A_FRAME_LATER = """new Promise((shown) =>
  requestAnimationFrame(() => requestAnimationFrame(shown)))"""

SELECT = """(line) => getSelection().selectAllChildren(line)"""


def paragraphs(count: int) -> str:
    return "\n\n".join(f"line{number} of it" for number in range(1, count + 1))


class LongConversation(NamedTuple):
    url: str
    cookies: Any


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def long_conversation(server: LiveServer, browser: Browser) -> LongConversation:
    """Made once: it takes as long as the tests that look at it."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(server.url)
    chat = Chat(page)
    await chat.say("long 600")
    await chat.ended()
    await chat.live()
    for count in range(2, PROMPTS + 1):
        await chat.say("what is this")
        await chat.ended(count=count)
    made = LongConversation(page.url, await context.storage_state())
    await context.close()
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def long_chat(long_conversation: LongConversation, visit: OpenChat) -> Chat:
    """A new browser that has opened it."""
    made = long_conversation
    chat = await visit(made.url, viewport=SMALL, storage_state=made.cookies)
    await chat.live()
    return chat


async def test_a_frame_styles_and_lays_out_what_is_in_sight_alone(long_chat: Chat):
    chat = long_chat
    await chat.page.evaluate(AS_LONG_AS_HUNDREDS_OF_MESSAGES, COPIES)
    elements = await chat.page.locator("[data-timeline] *").count()
    assert elements > COPIES * 200
    browser = chat.page.context.browser
    assert browser is not None
    await chat.say("slow 60")
    # The copies are laid out once, by every core that the machine has to spare.
    await expect(chat.answers.last).to_contain_text("Counting", timeout=60_000)
    await chat.page.evaluate(A_FRAME_LATER)
    timeline = ["devtools.timeline", "disabled-by-default-devtools.timeline"]
    await browser.start_tracing(page=chat.page, categories=timeline)
    for _ in range(2):
        said = await chat.answers.last.text_content()
        assert said is not None
        await expect(chat.answers.last).not_to_have_text(said)
        await chat.page.evaluate(A_FRAME_LATER)
    events = json.loads(await browser.stop_tracing())["traceEvents"]
    assert max(_said(events, "UpdateLayoutTree", "elementCount")) < 300
    assert max(_said(events, "Layout", "totalObjects")) < 3_000
    await chat.stop_button.click()
    await expect(chat.inferences.last).to_have_attribute("data-status", "cancelled")


def _said(events: list[dict[str, Any]], name: str, key: str) -> list[int]:
    """What the work of that name says of itself."""
    told = [event.get("args", {}) for event in events if event.get("name") == name]
    flat = [{**args, **args.get("beginData", {})} for args in told]
    return [args[key] for args in flat if key in args]


async def test_a_flush_touches_as_much_of_a_long_answer_as_of_a_short_one(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    few, many = [
        await probe(chat.page, "touched", {"before": paragraphs(count), "piece": paragraphs(2)})
        for count in (40, 2_000)
    ]
    assert few == many > 0


async def test_the_parts_of_an_answer_are_the_server_s_and_all_of_it_is_there(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url, viewport=SMALL)
    await chat.say(paragraphs(100))
    await chat.ended()
    parts = chat.answers.locator(".prose-part")
    await expect(parts).to_have_count(3)
    await chat.shows_the_whole_timeline()
    live = await chat.cards()
    await chat.page.reload()
    await chat.live()
    assert await chat.cards() == live
    found = "(words) => { getSelection().removeAllRanges(); return window.find(words); }"
    assert await chat.page.evaluate(found, "line50 of it")
    said = await chat.page.locator("[data-timeline]").aria_snapshot()
    assert "line40 of it" in said


async def test_words_that_are_selected_stay_so_while_the_answer_grows(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url, viewport=SMALL)
    await chat.say(paragraphs(250))
    line = chat.answers.get_by_text("line34 of it", exact=True)
    await line.evaluate(SELECT)
    await chat.ended()
    assert await chat.page.evaluate("getSelection().toString()") == "line34 of it"


@pytest.mark.parametrize("word", ["word130", "word560"])
async def test_a_reload_leads_to_a_place_far_from_the_end(long_chat: Chat, word: str):
    chat = long_chat
    await chat.answers.get_by_text(word).scroll_into_view_if_needed()
    await scroll_up(chat.page, 60)
    before = await top_of(chat, word)
    await chat.page.add_init_script(EVERY_FRAME.replace("WORD", word))
    await chat.page.reload()
    await chat.live()
    while len(tops := await chat.page.evaluate("window.__tops")) < 30:
        await chat.page.evaluate("new Promise(requestAnimationFrame)")
    assert {top for top in tops if abs(top - before) > 1} == set()


async def test_a_reload_leads_to_a_place_in_the_midst_of_an_answer(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url, viewport=SMALL)
    await chat.say(paragraphs(250))
    await chat.ended()
    await chat.live()
    line = chat.answers.get_by_text("line90 of it", exact=True)
    await line.scroll_into_view_if_needed()
    before = await top_of(chat, "line90 of it")
    await chat.page.mouse.move(400, 200)
    await chat.page.mouse.wheel(0, -60)
    while (top := await top_of(chat, "line90 of it")) == before:
        await chat.page.evaluate("new Promise(requestAnimationFrame)")
    await chat.page.evaluate("new Promise(requestAnimationFrame)")
    assert top == pytest.approx(before + 60, abs=1)
    before = top
    await chat.page.reload()
    await chat.live()
    assert await top_of(chat, "line90 of it") == pytest.approx(before, abs=1)
