"""One Markdown, three ways to the page: the server's, the script's, the script's bit by bit."""

from __future__ import annotations

import pytest
from django.template.loader import render_to_string
from playwright.async_api import Page, expect

from chat.markdown import render
from tests.browser.chat import probe
from tests.browser.conftest import OpenChat
from tests.browser.corpus import HONEST, HOSTILE, LONG
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

NUL = "\\u0000"


async def drawn(page: Page, source: str, *, characters: bool) -> str:
    html: str = await probe(page, "drawn", {"source": source, "characters": characters})
    return html


async def test_server_and_script_show_the_same_elements(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    bare = await visit("about:blank")
    different = []
    for source in [*HONEST, *LONG]:
        await bare.page.set_content(f"<div>{render(source)}</div>")
        by_server = await probe(bare.page, "normalised", "body > div")
        by_script = await drawn(chat.page, source, characters=False)
        if by_server != by_script:
            different.append(f"{source!r}\nSERVER\n{by_server}\nSCRIPT\n{by_script}")
    assert not different, "\n\n".join(different)


async def test_text_that_is_adopted_in_mid_answer_is_the_text_that_was_sent(visit: OpenChat):
    bare = await visit("about:blank")
    for source in [*HONEST, *HOSTILE, "", "\n", "\n\na", "a\r\n\r\nb\rc\0d &amp; &#13;"]:
        card = {"props": {"streaming": True, "content": source}}
        await bare.page.set_content(render_to_string("chat/cards/text.html", {"card": card}))
        adopted = await bare.page.locator("[data-source]").evaluate("(slot) => slot.textContent")
        assert adopted == source.replace("\0", "\ufffd")


async def test_text_that_grows_ends_as_text_that_came_at_once(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    together = "\n\n".join(source for source in HONEST if "never closed" not in source)
    different = []
    for source in [*HONEST, *HOSTILE, together]:
        grown = await drawn(chat.page, source, characters=True)
        at_once = await drawn(chat.page, source, characters=False)
        if grown != at_once:
            different.append(f"{source!r}\nGROWN\n{grown}\nAT ONCE\n{at_once}")
    assert not different, "\n\n".join(different)


async def test_no_prefix_of_a_hostile_text_makes_an_element_that_is_not_listed(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    for source in HOSTILE:
        assert await probe(chat.page, "strangers", source) == []


async def test_colours_come_out_of_any_html_and_nothing_else(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url, bypass_csp=True)
    for html in [*HOSTILE, '</span><span class="card">x</span><span class="hljs-tag" id="x">']:
        assert await probe(chat.page, "strangersAmongSpans", html) == []


async def test_text_nested_too_deep_is_shown_as_it_is(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    for source in ("> " * 5_000, "- " * 5_000, "[" * 20_000, "*a " * 20_000, "![" * 5_000):
        assert await drawn(chat.page, source, characters=False)


async def test_a_hostile_model_reaches_nobody_and_runs_nothing(
    echo_server: LiveServer, visit: OpenChat
):
    """The whole way: prompt, provider, log, socket, page; then as the server renders it."""
    chat = await visit(echo_server.url)
    await chat.say("begin")
    await chat.ended()
    await chat.live()
    for count, source in enumerate(HOSTILE, start=2):
        await chat.say(source)
        await chat.ended(count=count)
    live = (await chat.cards()).replace(NUL, "")  # no HTML document can hold one
    await chat.page.reload()
    await chat.live()
    assert await chat.cards() == live
    plain = await visit(chat.page.url, cookies_of=chat, java_script_enabled=False)
    assert await plain.cards() == live


async def test_server_rendered_cards_are_the_cards_that_scripts_make(
    server: LiveServer, visit: OpenChat
):
    live = await visit(server.url)
    await live.say("markdown")
    await live.ended()
    for count, prompt in enumerate(("fail", "slow 1", "what is this", "help"), start=2):
        await live.say(prompt)
        await live.ended("failed" if prompt == "fail" else "completed", count=count)
    plain = await visit(live.page.url, cookies_of=live, java_script_enabled=False)
    assert await plain.cards() == await live.cards()
    await live.page.reload()
    await live.live()
    assert await plain.cards() == await live.cards()


async def test_a_snapshot_makes_the_same_cards_as_the_frames(server: LiveServer, visit: OpenChat):
    live = await visit(server.url)
    await live.say("markdown")
    await live.ended()
    by_frames = await live.cards()
    await probe(live.page, "showSnapshot", f"/api/timeline?conv_id={live.conv_id}")
    assert await live.cards() == by_frames


async def test_code_is_coloured_and_copied(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url, permissions=["clipboard-read", "clipboard-write"])
    await chat.say("markdown")
    await chat.ended()
    block = chat.page.locator(".code-block").first
    await expect(block.locator(".hljs-keyword").first).to_be_visible()
    await expect(block.get_by_text("python", exact=True)).to_be_visible()
    await block.hover()
    await block.get_by_role("button", name="Copy").click()
    await expect(block.get_by_role("button", name="Copied")).to_be_visible()
    copied = await chat.page.evaluate("navigator.clipboard.readText()")
    assert copied == await block.locator("code").text_content()
