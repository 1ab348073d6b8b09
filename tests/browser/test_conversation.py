"""A person talks: the page, its scripts and a real server."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import OpenChat
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


async def test_a_prompt_streams_into_the_page(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("slow 3")
    await expect(chat.answers).to_have_text(re.compile(r"Counting: 1"))
    await expect(chat.inferences).to_have_attribute("data-status", "running")
    await expect(chat.stop_button).to_be_visible()
    await chat.ended()
    await expect(chat.answers).to_have_text(re.compile(r"1 2 3 and done"))
    await expect(chat.stop_button).to_be_hidden()
    await chat.shows_the_whole_timeline()


async def test_an_answer_is_stopped_in_the_middle_and_keeps_its_words(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("slow 30")
    await expect(chat.answers).to_have_text(re.compile(r"Counting: 1 2"))
    await chat.stop_button.click()
    await chat.ended("cancelled")
    await expect(chat.inferences.get_by_text("Stopped.", exact=True)).to_be_visible()
    await expect(chat.answers).to_have_text(re.compile(r"Counting: 1 2"))
    await expect(chat.stop_button).to_be_hidden()
    await expect(chat.prompt).to_be_focused()
    await chat.shows_the_whole_timeline()


async def test_an_answer_is_stopped_before_its_first_word(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("hang")
    await expect(chat.inferences).to_have_attribute("data-status", "running")
    await expect(chat.answers).to_have_count(0)
    await chat.stop_button.click()
    await chat.ended("cancelled")
    await chat.say("what is this")
    await chat.ended(count=2)


async def test_a_failure_says_what_went_wrong(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("fail")
    await chat.ended("failed")
    error = next(e for e in await chat.entities() if e["kind"] == "inference")["props"]["error"]
    await expect(chat.inferences.get_by_text(error)).to_be_visible()


async def test_reloading_in_mid_answer_misses_nothing_and_doubles_nothing(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("slow 4")
    for seen in ("Counting: 1", "1 2", "1 2 3"):
        await expect(chat.answers).to_have_text(re.compile(seen))
        await chat.page.reload()
    await chat.ended()
    await expect(chat.answers).to_have_text(re.compile(r"Counting: 1 2 3 4 and done"))
    await chat.shows_the_whole_timeline()


async def test_a_second_tab_shows_the_same(server: LiveServer, visit: OpenChat):
    first = await visit(server.url)
    await first.say("markdown")
    second = await visit(first.page.url, like=first)
    await first.ended()
    await second.ended()
    await second.say("slow 2")
    await first.ended(count=2)
    await second.ended(count=2)
    assert await first.cards() == await second.cards()
    assert await first.card_ids() == [entity["id"] for entity in await first.entities()]


async def test_a_stop_in_one_tab_ends_the_answer_in_the_other(server: LiveServer, visit: OpenChat):
    first = await visit(server.url)
    await first.say("slow 30")
    second = await visit(first.page.url, like=first)
    await second.stop_button.click()
    await first.ended("cancelled")
    await expect(first.stop_button).to_be_hidden()


async def test_the_list_names_the_conversations_and_marks_the_running(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await expect(chat.page.get_by_text("None yet.")).to_be_visible()
    await chat.say("hang")
    hanging = chat.page.url
    await chat.page.get_by_role("link", name="New").click()
    await expect(chat.row("hang").get_by_text("answering")).to_be_visible()
    await chat.say("what is this")
    await chat.ended()
    rows = chat.page.locator("[data-conversations] li")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("what is this")
    await expect(rows.first.get_by_role("link")).to_have_attribute("aria-current", "page")
    await expect(chat.page.get_by_role("heading", level=1)).to_have_text("what is this")
    await chat.row("hang").get_by_role("link").click()
    await chat.page.wait_for_url(hanging)
    await chat.stop_button.click()
    await expect(chat.row("hang").get_by_text("answering")).to_be_hidden()


async def test_somebody_else_s_conversation_is_as_absent_as_none(
    server: LiveServer, visit: OpenChat
):
    owner = await visit(server.url)
    await owner.say("what is this")
    stranger = await visit(server.url)
    for url in (owner.page.url, f"{server.url}/c/never-was/"):
        answer = await stranger.page.goto(url)
        assert answer
        assert answer.status == 404
        await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Nothing here")


async def test_an_error_stands_next_to_the_composer_and_the_text_is_kept(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("what is this")
    await chat.ended()
    await chat.live()

    async def refuse(route: Route) -> None:
        error = {"error": "the server is closing; try again", "code": "draining"}
        await route.fulfill(status=503, json=error)

    await chat.page.route("**/chat/*", refuse)
    await chat.say("me too")
    await expect(chat.error).to_have_text("the server is closing; try again")
    await expect(chat.error).to_be_visible()
    await expect(chat.prompt).to_have_value("me too")
    await chat.page.unroute("**/chat/*")
    await chat.prompt.press("Enter")
    await chat.ended(count=2)
    await expect(chat.error).to_be_empty()
    await expect(chat.prompt).to_have_value("")


async def test_a_prompt_whose_answer_got_lost_is_sent_again_under_the_same_key(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("what is this")
    await chat.ended()
    keys: list[str] = []

    async def first_answer_is_lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        await (route.abort() if len(keys) == 1 else route.continue_())

    await chat.page.route("**/chat/*", first_answer_is_lost)
    await chat.say("markdown")
    await expect(chat.error).to_contain_text("cannot be reached")
    await expect(chat.prompt).to_have_value("markdown")
    await chat.prompt.press("Enter")
    await expect(chat.prompt).to_have_value("")
    await chat.ended(count=2)
    await chat.say("help")
    await chat.ended(count=3)
    assert keys[0] == keys[1] != keys[2]


async def test_the_draft_survives_a_reload_and_belongs_to_its_conversation(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    await chat.say("what is this")
    await chat.ended()
    await chat.prompt.fill("half a thou")
    await chat.page.reload()
    await expect(chat.prompt).to_have_value("half a thou")
    await chat.page.goto(server.url)
    await expect(chat.prompt).to_have_value("")


async def test_the_profile_is_remembered_for_the_next_conversation(
    server: LiveServer, visit: OpenChat
):
    chat = await visit(server.url)
    profile = chat.page.get_by_label("Profile")
    async with chat.page.expect_response("**/api/chat/profile"):
        await profile.select_option("agent")
    await chat.page.goto(server.url)
    await expect(profile).to_have_value("agent")
    await chat.say("what is this")
    await expect(profile).to_have_value("agent")
    await chat.ended()
    assert (await chat.entities())[1]["props"]["profile"] == "agent"


@pytest.mark.parametrize("key", ["Shift+Enter", "composition"])
async def test_only_a_plain_enter_sends(server: LiveServer, visit: OpenChat, key: str):
    chat = await visit(server.url)
    await chat.prompt.fill("not yet")
    if key == "composition":
        await chat.prompt.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    else:
        await chat.prompt.press(key)
        await expect(chat.prompt).to_have_value("not yet\n")
    assert chat.page.url == f"{server.url}/"


async def test_signing_in_brings_the_conversations_along(server: LiveServer, visit: OpenChat):
    server.manage("shell", "-c", MAKE_USER)
    chat = await visit(server.url)
    await chat.say("what is this")
    await chat.ended()
    conversation = chat.page.url
    await chat.page.get_by_role("link", name="Log in").click()
    await chat.page.get_by_label("Username").fill("carla")
    await chat.page.get_by_label("Password").fill("wrong")
    await chat.page.get_by_role("main").get_by_role("button", name="Log in").click()
    await expect(chat.page.get_by_role("alert")).to_be_visible()
    await chat.page.get_by_label("Username").fill("carla")
    await chat.page.get_by_label("Password").fill("a long pass phrase")
    await chat.page.get_by_role("main").get_by_role("button", name="Log in").click()
    await expect(chat.page.get_by_text("carla")).to_be_visible()
    await chat.row("what is this").get_by_role("link").click()
    await chat.page.wait_for_url(conversation)
    await chat.live()
    await chat.page.get_by_role("button", name="Log out").click()
    await expect(chat.page.get_by_role("link", name="Log in")).to_be_visible()
    answer = await chat.page.goto(conversation)
    assert answer
    assert answer.status == 404


MAKE_USER = """
from django.contrib.auth.models import User
User.objects.filter(username="carla").exists() or User.objects.create_user(
    "carla", password="a long pass phrase")
"""
