"""The operator's desk in a real browser, and the rest of the admin under the site's policy."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.axe import nothing_wrong
from tests.browser.conftest import OpenChat
from tests.client import Visitor, visitor
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

LIST = "/admin/sessions_app/livesession/"

MORPH_ANYTHING = """async () => {
  const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
  const { morph } = await import(loaded.find((name) => /desk\\/morph/.test(name)));
  let seed = 7;
  const below = (n) => (seed = (seed * 48271) % 2147483647) % n;
  const row = (key) => `<p data-key="k${key}" class="c${below(2)}">${"x".repeat(below(3))}</p>`;
  const some = () => {
    const keys = [0, 1, 2, 3, 4, 5].filter(() => below(3)).sort(() => below(3) - 1);
    const rows = keys.map((key) => (below(4) ? "\\n" : "<i>i</i>") + row(key));
    return `<div>${rows.join("")}<b>${below(9)}</b></div>`;
  };
  const parse = (html) => new DOMParser().parseFromString(html, "text/html").body.firstChild;
  const wrong = [];
  for (let i = 0; i < 2000; i += 1) {
    const [before, after] = [some(), some()];
    const shown = document.importNode(parse(before), true);
    const had = new Map([...shown.querySelectorAll("[data-key]")].map((e) => [e.dataset.key, e]));
    morph(shown, parse(after));
    const kept = [...shown.querySelectorAll("[data-key]")].every(
      (e) => !had.has(e.dataset.key) || had.get(e.dataset.key) === e);
    if (shown.outerHTML !== parse(after).outerHTML || !kept) wrong.push([before, after]);
  }
  return wrong.slice(0, 3);
}"""
"""Makes thousands of pieces of markup into others, and returns what went wrong."""

MAKE_READER = """
from django.contrib.auth.models import Permission, User
reader = User.objects.create_user("reader", password="of a reader", is_staff=True)
reader.user_permissions.set(Permission.objects.filter(codename="transcript_livesession"))
"""
"""Somebody who may read every conversation, and nothing else."""

OpenDesk: TypeAlias = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def password(server: LiveServer) -> str:
    """Of the server's one superuser, `operator`."""
    said = re.search(r"password (\S+)", server.manage("operator"))
    assert said
    return said[1]


@pytest_asyncio.fixture(loop_scope="session")
async def desk(server: LiveServer, visit: OpenChat, password: str) -> OpenDesk:
    """Opens a page of the admin as the operator."""

    async def opened(path: str, **options: object) -> Page:
        chat = await visit(f"{server.url}/admin/login/?next={path}", **options)
        await chat.page.get_by_label("Username").fill("operator")
        await chat.page.get_by_label("Password").fill(password)
        await chat.page.get_by_role("button", name="Log in").click()
        await expect(chat.page).to_have_url(f"{server.url}{path}")
        return chat.page

    return opened


@pytest_asyncio.fixture(loop_scope="session")
async def anna(server: LiveServer) -> AsyncIterator[Visitor]:
    """Whose inferences have ended after each test: the server waits for them when it stops."""
    async with visitor(server.url) as somebody:
        yield somebody
        for conversation in await somebody.get("/api/conversations"):
            cancelled = {"conv_id": conversation["conv_id"], "queue": True}
            await somebody.post("/api/chat/cancel", cancelled)


async def look_again(page: Page) -> None:
    """Has the page refresh itself now, as when it is shown after it was hidden."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_no_page_of_the_admin_offends_against_the_policy(
    server: LiveServer, desk: OpenDesk, anna: Visitor
):
    await anna.chat("hang", "walk")
    page = await desk("/admin/")
    for path in (
        "/admin/auth/user/",
        "/admin/auth/user/add/",
        "/admin/auth/user/1/change/",
        "/admin/auth/user/1/delete/",
        "/admin/auth/group/add/",
        "/admin/password_change/",
        LIST,
        f"{LIST}walk/",
        f"{LIST}never/",
    ):
        await page.goto(f"{server.url}{path}")
        assert await page.evaluate("window.__violations") == [], path
        if path.startswith(LIST):
            await nothing_wrong(page, path)


async def test_the_list_keeps_itself_fresh_and_what_one_does_there(
    server: LiveServer, desk: OpenDesk, anna: Visitor
):
    await anna.chat("hang", "fresh-1")
    page = await desk(f"{LIST}?q=fresh-")
    await page.evaluate("window.notReloaded = true")
    row = page.locator('[data-key="fresh-1"]')
    await expect(row).to_contain_text("Waiting for the model")
    await anna.chat("hang", "fresh-2")
    # By itself, within seconds; the other times we do not wait for it.
    await expect(page.locator('[data-key="fresh-2"]')).to_be_visible()

    box = row.get_by_role("checkbox")
    await box.check()
    await expect(page.locator("[data-selected]")).to_have_text("1 of 2 selected")
    await anna.chat("hang", "fresh-3")
    await anna.post("/api/chat/cancel", {"conv_id": "fresh-1"})
    await look_again(page)
    await expect(row).to_contain_text("Idle")
    await expect(box).to_be_checked()
    await expect(box).to_be_focused()
    await expect(page.locator("[data-freshness]")).to_contain_text("Rows keep their places")
    await expect(page.locator('[data-key="fresh-3"]')).to_have_count(0)
    await box.uncheck()
    await page.get_by_label("Search live sessions").focus()
    await page.mouse.move(0, 0)
    await look_again(page)
    await expect(page.locator('[data-key="fresh-3"]')).to_be_visible()
    assert await page.evaluate("window.notReloaded")

    await page.context.set_offline(True)
    await expect(page.locator("[data-freshness]")).to_contain_text("You are offline. What you see")
    await page.context.set_offline(False)
    await expect(page.locator("[data-freshness]")).to_contain_text("Live, as of")

    await page.get_by_label("Select all sessions on this page").check()
    await page.get_by_label("Action").select_option("Cancel the inference")
    await page.get_by_role("button", name="Go").click()
    await expect(page.get_by_role("heading", name="Cancel the inference?")).to_be_visible()
    await page.get_by_role("button", name="Yes, cancel the inference").click()
    await expect(page.get_by_text("The inference was asked to end: 2 sessions")).to_be_visible()
    assert page.url == f"{server.url}{LIST}?q=fresh-"


async def test_whatever_is_shown_becomes_what_the_server_says_and_keeps_its_elements(
    desk: OpenDesk,
):
    page = await desk(LIST)
    await expect(page.locator("[data-freshness]")).to_contain_text("Live, as of")
    assert await page.evaluate(MORPH_ANYTHING) == []


async def test_a_pause_is_decided_and_its_frames_are_followed(desk: OpenDesk, anna: Visitor):
    await anna.post("/chat/agent", {"prompt": "approve", "conv_id": "pause-1"})
    page = await desk(f"{LIST}pause-1/")
    frames = page.locator("[data-frames]")
    await expect(frames.get_by_role("status")).to_have_text("Following live.")
    await expect(frames.locator("li").last).to_contain_text("PauseOpened → debugger.pause")
    arguments = page.get_by_label("demo_send_note")
    await arguments.fill('{"text": "')
    await anna.post("/chat", {"prompt": "and this waits", "conv_id": "pause-1"})
    await look_again(page)
    await expect(page.locator('[data-live="queue"]')).to_contain_text("and this waits")
    await expect(arguments).to_have_value('{"text": "')
    await page.get_by_role("button", name="Run with these arguments").click()
    await page.get_by_role("button", name="Yes, run with these arguments").click()
    await expect(page.get_by_role("alert")).to_contain_text("no JSON object")
    await page.get_by_label("Arguments of").fill('{"text": "mended"}')
    await page.get_by_role("button", name="Yes, run with these arguments").click()
    await expect(page.get_by_text("The pause ended as edit")).to_be_visible()
    await expect(page.locator('[data-live="timing"]')).to_contain_text("completed")
    await expect(page.locator('[data-live="turns"]')).to_contain_text("The note was left.")

    await expect(frames.get_by_role("status")).to_have_text("Following live.")
    await frames.get_by_label("Type").select_option("chat.message")
    await expect(frames.locator("li:visible")).to_have_count(2)
    await anna.post("/chat", {"prompt": "what is this", "conv_id": "pause-1"})
    await expect(frames.locator("li:visible")).to_have_count(3)
    newest = frames.locator("li:visible").last
    await expect(newest).to_contain_text("PromptTaken → chat.message")
    await newest.locator("summary").click()
    await expect(newest.locator("pre")).to_contain_text('"content": "what is this"')


async def test_staff_are_shown_no_button_of_a_conversation_that_they_may_not_use(
    server: LiveServer, visit: OpenChat
):
    server.manage("shell", "-v0", "-c", MAKE_READER)
    owner = await visit(server.url)
    await owner.page.get_by_label("Profile").select_option("agent")
    await owner.say("approve")
    await owner.queue("this waits")
    reader = await visit(f"{server.url}/accounts/login/?next=/c/{owner.conv_id}/")
    await reader.page.get_by_label("Username").fill("reader")
    await reader.page.get_by_label("Password").fill("of a reader")
    await reader.page.get_by_label("Password").press("Enter")
    await reader.live()
    await expect(reader.page.locator("[data-queue] li")).to_contain_text("this waits")
    arguments = reader.page.get_by_label("Arguments of demo_send_note")
    await expect(arguments).to_have_attribute("readonly", "")
    buttons = await reader.page.get_by_role("main").get_by_role("button").all_inner_texts()
    assert {words.strip() for words in buttons} <= {"Copy", "Jump to latest"}
    await expect(reader.page.get_by_label("Profile")).to_be_hidden()
    await nothing_wrong(reader.page, "somebody else's conversation")

    # Also the cards that come later.
    await owner.page.get_by_role("button", name="Run now: this waits").click()
    await owner.ended(count=2)
    await reader.ended(count=2)
    await owner.say("approve")
    await owner.queue("and this")
    await expect(reader.page.locator("[data-queue] li")).to_contain_text("and this")
    await expect(arguments).to_have_attribute("readonly", "")
    buttons = await reader.page.get_by_role("main").get_by_role("button").all_inner_texts()
    assert {words.strip() for words in buttons} <= {"Copy", "Jump to latest"}
    await owner.page.get_by_role("button", name="Remove: and this").click()
    await owner.stop_button.click()
    await owner.ended("cancelled", count=3)


async def test_the_list_rests_while_nobody_sees_it(desk: OpenDesk, anna: Visitor):
    page = await desk(LIST)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.headers.get("x-live-part", "")))
    await page.clock.install()
    await page.reload()
    await expect(page.locator("[data-freshness]")).to_contain_text("Live, as of")
    asked.clear()
    async with page.expect_response(lambda answer: "x-live-part" in answer.request.headers):
        await page.clock.run_for(3_000)
    assert asked == ["1"]

    await be_hidden(page, True)
    await page.clock.run_for(60_000)
    assert asked == ["1"]
    await anna.chat("hang", "unseen-1")
    await be_hidden(page, False)
    await expect(page.locator('[data-key="unseen-1"]')).to_be_visible()
    assert asked == ["1", "1"]


async def be_hidden(page: Page, hidden: bool) -> None:
    """As if another tab were looked at, or this one again."""
    await page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_the_whole_list_is_in_sight_on_a_desk_and_its_ids_are_whole(
    desk: OpenDesk, anna: Visitor
):
    conv_id = "0190b2c4-5d6e-7f80-91a2-b3c4d5e6f708"
    await anna.chat("fail", conv_id)
    page = await desk(f"{LIST}?q={conv_id}", viewport={"width": 1440, "height": 900})
    await expect(page.locator("#site-name")).to_have_text("Webchat")
    for width in (1440, 768):
        await page.set_viewport_size({"width": width, "height": 900})
        id = page.locator(f'[data-key="{conv_id}"] code')
        whole = "(id) => id.scrollWidth <= id.clientWidth && id.scrollHeight <= id.clientHeight"
        assert await id.evaluate(whole), width
        await expect(page.locator(".field-state .desk-state")).to_be_in_viewport(ratio=1)
        await expect(page.get_by_role("link", name="With errors")).to_be_in_viewport(ratio=1)
    for width in (1440, 1280):
        await page.set_viewport_size({"width": width, "height": 900})
        await expect(page.locator(".field-window")).to_be_in_viewport(ratio=1)


async def test_only_tables_scroll_sideways_on_a_small_screen(
    server: LiveServer, desk: OpenDesk, anna: Visitor
):
    conv_id = f"narrow-{'x' * 90}"
    await anna.post("/chat/agent", {"prompt": "approve", "conv_id": conv_id})
    page = await desk(f"{LIST}{conv_id}/", viewport={"width": 360, "height": 640})
    for path in (f"{LIST}{conv_id}/", LIST):
        await page.goto(f"{server.url}{path}")
        assert await page.evaluate("document.documentElement.scrollWidth") == 360, path


async def test_without_scripts_the_pages_read_and_act(desk: OpenDesk, anna: Visitor):
    await anna.chat("hang", "plain-1")
    page = await desk(f"{LIST}plain-1/", java_script_enabled=False)
    await expect(page.locator("[data-frames]")).to_contain_text("InferenceStarted")
    await page.get_by_role("button", name="Cancel the inference").click()
    await page.get_by_role("button", name="Yes, cancel the inference").click()
    await expect(page.get_by_text("The inference was asked to end: plain-1")).to_be_visible()
