"""Kinds of events of installed apps: the example, and what an app can get wrong."""

from __future__ import annotations

import asyncio
import json
import re
from uuid import uuid4

import pytest
from playwright.async_api import Browser, Locator, Route, expect

from tests.browser.chat import Chat, probe
from tests.browser.conftest import OpenChat
from tests.browser.test_tools import shows_the_same_however_it_came
from tests.client import visitor
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

FIRST, LATER = "6 words in 1 model call", "14 words in 2 model calls"
HOSTILE = "<img src=x onerror='window.__pwned=1'>{{ 7|add:7 }}</pre><script>__pwned=1</script>"


def card(chat: Chat, kind: str) -> Locator:
    return chat.page.locator(f'[data-timeline] [data-card="app.{kind}"]')


def readable(chat: Chat, kind: str) -> Locator:
    """The cards of a kind that has no template."""
    summary = chat.page.locator("summary", has_text=re.compile(f"^{kind}$"))
    return chat.page.locator('[data-timeline] [data-card="other"]').filter(has=summary)


def said(kind: str, id: str, **props: object) -> dict[str, object]:
    return {"kind": kind, "id": id, "props": props}


async def tell(chat: Chat, *events: dict[str, object]) -> None:
    """Lets the app publish these events."""
    await chat.page.get_by_label("Profile").select_option("prompted")
    await chat.say(json.dumps(events))


async def test_the_example_s_frames_become_one_entity_for_each_answer(echo_server: LiveServer):
    conv = str(uuid4())
    async with visitor(echo_server.url) as anna:
        async with anna.socket(conv, profile="demo-thinker") as socket:
            await socket.until("timeline.snapshot")
            await anna.chat("what time is it", conv)
            frames = await socket.until("inference.finished")
            await anna.chat("think hard", conv)
            frames += await socket.until("inference.finished")
        entities = (await anna.get("/api/timeline", conv_id=conv))["entities"]
        page = (await anna.http.get(f"/c/{conv}/")).text

    told = [frame for frame in frames if frame["type"] == "app.thinking-mode"]
    [first, second] = [frame["id"] for frame in frames if frame["type"] == "inference.started"]
    assert [(frame["id"], frame["data"]["props"]) for frame in told[:4]] == [
        (f"thinking-mode:{first}", {"level": "little"}),
        (f"thinking-mode:{first}", {"words": 6, "calls": 1}),
        (f"thinking-mode:{first}", {}),
        (f"thinking-mode:{first}", {"words": 14, "calls": 2}),
    ]
    assert all(frame["inference_id"] in frame["id"] for frame in told)
    shown = [entity for entity in entities if entity["kind"] == "thinking-mode"]
    assert [(entity["id"], entity["updatedSeq"]) for entity in shown] == [
        (f"thinking-mode:{first}", told[3]["seq"]),
        (f"thinking-mode:{second}", told[-1]["seq"]),
    ]
    assert shown[0]["props"] == {"level": "little", "words": 14, "calls": 2}
    assert (shown[1]["props"]["level"], shown[1]["props"]["calls"]) == ("hard", 1)
    # What a page without scripts shows.
    assert "14 words in 2 model calls" in page
    assert re.search(r'data-module="/static/thinking_mode/card\.[0-9a-f]{12}\.js"', page)
    assert re.search(r'href="/static/thinking_mode/card\.[0-9a-f]{12}\.css"', page)


async def test_the_example_s_card_grows_as_the_agent_thinks_in_every_tab(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url)
    await chat.page.get_by_label("Profile").select_option("demo-thinker")
    await chat.say("approve")
    line = card(chat, "thinking-mode")
    await expect(line).to_have_text(f"Thinking: little {FIRST}")
    second = await visit(chat.page.url, like=chat)
    await second.live()
    await expect(card(second, "thinking-mode")).to_contain_text(FIRST)
    await chat.page.get_by_role("button", name="Continue").click()
    for tab in (chat, second):
        await tab.ended()
        await expect(card(tab, "thinking-mode")).to_have_text(f"Thinking: little {LATER}")
    assert await chat.cards() == await second.cards()
    await shows_the_same_however_it_came(chat)


async def test_frames_that_come_before_the_module_are_shown_in_order_when_it_has_come(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url)
    gate = asyncio.Event()

    async def late(route: Route) -> None:
        await gate.wait()
        await route.continue_()

    await chat.page.context.route("**/thinking_mode/card.*.js", late)
    await chat.page.get_by_label("Profile").select_option("demo-thinker")
    await chat.say("approve")
    await chat.page.get_by_role("button", name="Continue").click()
    await chat.ended()
    gate.set()
    await expect(card(chat, "thinking-mode")).to_have_text(f"Thinking: little {LATER}")
    await shows_the_same_however_it_came(chat)


async def test_a_template_alone_shows_the_props_in_its_slots(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url)
    await tell(
        chat,
        said("slots", "s", level="low", why={"n": [1, True, None, 1.0, "ä"]}),
        said("slots", "s", level=3),
        said("slots", "t", why="it rains", constructor="no slot"),
    )
    await chat.ended()
    await expect(card(chat, "slots").first).to_have_text("Level 3, because")
    await expect(card(chat, "slots").last).to_have_text("Level , because it rains")
    await shows_the_same_however_it_came(chat)


async def test_a_kind_that_nobody_knows_is_readable_json_that_follows_its_frames(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url)
    await tell(chat, said("mood", "m", b=1.0, a="x"), said("mood", "m", a=None, c=[2**60]))
    await chat.ended()
    await expect(readable(chat, "mood")).to_have_count(1)
    shown = await readable(chat, "mood").locator("pre").text_content()
    assert json.loads(shown or "") == {"b": 1, "a": None, "c": [1152921504606847000]}
    await shows_the_same_however_it_came(chat)
    await chat.page.reload()
    await chat.live()
    await readable(chat, "mood").locator("summary").click()
    await probe(chat.page, "takeSnapshot", f"/api/timeline?conv_id={chat.conv_id}")
    await expect(readable(chat, "mood")).to_have_attribute("open", "")


async def test_a_frame_after_a_reload_changes_the_card_that_the_server_drew(
    echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(echo_server.url)
    for n, count in ((1, 1), (2, 2)):
        await tell(
            chat,
            said("mood", "m", **{f"key{n}": n}),
            said("slots", "s", level=n),
            said("fragile", "f", **({"level": "low"} if n == 1 else {"why": "later"})),
        )
        await chat.ended(count=count)
        await chat.page.reload()
        await chat.live()
    shown = await readable(chat, "mood").locator("pre").text_content()
    assert json.loads(shown or "") == {"key1": 1, "key2": 2}
    await expect(card(chat, "slots")).to_have_text("Level 2, because")
    await expect(card(chat, "fragile")).to_have_js_property("drawn", "low")
    await expect(card(chat, "fragile")).to_have_text("Level low, because later")
    await shows_the_same_however_it_came(chat)


async def test_hostile_props_stay_text(echo_server: LiveServer, visit: OpenChat):
    chat = await visit(echo_server.url)
    hostile = {"level": HOSTILE, "why": HOSTILE, HOSTILE: HOSTILE, "__proto__": {"level": "x"}}
    kinds = ("slots", "fragile", "thinking-mode", "mood")
    await tell(chat, *(said(kind, f"{kind}:{HOSTILE}", **hostile) for kind in kinds))
    await chat.ended()
    for card_of in (card(chat, "slots"), card(chat, "fragile"), card(chat, "thinking-mode")):
        await expect(card_of).to_contain_text(HOSTILE)
    await expect(card(chat, "fragile")).to_have_js_property("drawn", HOSTILE)
    shown = await readable(chat, "mood").locator("pre").text_content()
    assert json.loads(shown or "") == hostile
    await expect(chat.page.locator("[data-timeline] img, [data-timeline] script")).to_have_count(0)
    await shows_the_same_however_it_came(chat)
    await expect(chat.page.locator("[data-timeline] img, [data-timeline] script")).to_have_count(0)


async def test_a_module_that_throws_leaves_the_slots_and_the_conversation(
    echo_server: LiveServer, browser: Browser
):
    page = await browser.new_page()
    await page.goto(echo_server.url)
    chat = Chat(page)
    async with page.expect_console_message(lambda message: "too high" in message.text):
        await tell(chat, said("fragile", "f", level="low"), said("fragile", "f", level="high"))
    await chat.ended()
    await expect(card(chat, "fragile")).to_have_text("Level high, because")
    await tell(chat, said("fragile", "f", level="higher", why="still"))
    await chat.ended(count=2)
    await expect(card(chat, "fragile")).to_have_text("Level higher, because still")
    await page.context.close()


async def test_a_module_that_does_not_come_leaves_the_slots(
    echo_server: LiveServer, browser: Browser
):
    page = await browser.new_page()
    await page.route("**/prompted/fragile.*.js", lambda route: route.abort())
    await page.goto(echo_server.url)
    chat = Chat(page)
    await tell(chat, said("fragile", "f", level="low"))
    await chat.ended()
    await expect(card(chat, "fragile")).to_have_text("Level low, because")
    await page.context.close()
