"""Takes the pictures of docs/ from the page as it is: `make screenshots`.

The demo agent answers on a server of its own; nothing of this checkout's database is touched. What
differs from run to run on a page (the time of day, how long things took, ids made by chance) is
written over with fixed words first, so that a picture changes only when the page does.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias
from urllib.parse import urljoin

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.browser.chat import Chat
from tests.browser.conftest import ARGUMENTS
from tests.live import ROOT, SHARED, LiveServer, live_server

IMAGES = ROOT / "docs" / "images"
LARGEST = 120_000
"""Bytes of one picture."""

PASSWORD = secrets.token_urlsafe()
MAKE_ACCOUNTS = f"""
from django.contrib.auth.models import User
for name in ("anna", "ben", "carla"):
    User.objects.create_user(name, password={PASSWORD!r})
User.objects.create_superuser("operator", password={PASSWORD!r})
"""

STEADY = """() => {
  const fixed = [
    [/\\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\\b|\\b[0-9a-f]{32}\\b/g, "0123456789abcdef"],
    [/\\d{4}-\\d\\d-\\d\\d[T ]\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?/g, "2026-01-01T12:00:00"],
    [/\\b\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?\\b/g, "12:00:00"],
    [/\\b\\d:\\d\\d\\b/g, "4:58"],
    [/\\b\\d{13}\\b/g, "1767268800000"],
    [/\\b\\d min \\d+ s\\b/g, "4 min 58 s"],
    [/\\b[\\d.]+ ms\\b/g, "40 ms"],
    [/(?<! min )\\b[\\d.]+ s\\b/g, "3 s"],
  ];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const steady = fixed.reduce((now, [found, put]) => now.replace(found, put), text.data);
    if (steady !== text.data) text.data = steady;
  }
  document.activeElement?.blur();
}"""

LIST = "/admin/sessions_app/livesession/"


class Studio:
    """A server, a browser and the people in front of it."""

    def __init__(self, server: LiveServer, browser: Browser) -> None:
        self.server = server
        self._browser = browser
        self._cookies: dict[str, Any] = {}

    @asynccontextmanager
    async def tab(
        self,
        path: str = "/",
        *,
        user: str = "anna",
        width: int = 1120,
        height: int = 720,
        theme: Literal["light", "dark"] = "light",
    ) -> AsyncIterator[Chat]:
        """A tab of somebody who is signed in."""
        context = await self._browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=1,
            locale="en-GB",
            timezone_id="UTC",
            color_scheme=theme,
            reduced_motion="reduce",
            storage_state=self._cookies.get(user),
        )
        try:
            page = await context.new_page()
            if user not in self._cookies:
                await self._log_in(page, user)
            await page.goto(f"{self.server.url}{path}")
            yield Chat(page)
        finally:
            await context.close()

    async def _log_in(self, page: Page, user: str) -> None:
        await page.goto(f"{self.server.url}/accounts/login/")
        await page.get_by_label("Username").fill(user)
        await page.get_by_label("Password").fill(PASSWORD)
        async with page.expect_navigation():
            await page.get_by_label("Password").press("Enter")
        self._cookies[user] = await page.context.storage_state()


Scene: TypeAlias = Callable[[Studio], AsyncIterator[Page]]
SCENES: dict[str, Scene] = {}


def scene(taken: Scene) -> Scene:
    """A picture under the function's name: of the page it yields, as it then is."""
    SCENES[taken.__name__.replace("_", "-")] = taken
    return taken


async def take(studio: Studio, name: str) -> None:
    """Replaces one picture. Raises where it would be too large for a page of documentation."""
    async with asynccontextmanager(SCENES[name])(studio) as page:
        await page.evaluate(STEADY)
        picture = await page.screenshot(animations="disabled", caret="hide")
    if len(picture) > LARGEST:
        raise SystemExit(
            f"got {len(picture)} bytes for {name}.png; expected at most {LARGEST}; "
            "give the scene a smaller viewport"
        )
    (IMAGES / f"{name}.png").write_bytes(picture)
    print(f"docs/images/{name}.png  {len(picture) // 1000} kB", flush=True)


def card(chat: Chat, name: str) -> Locator:
    return chat.page.locator(f'[data-timeline] [data-card="{name}"]')


async def agent(chat: Chat, prompt: str) -> None:
    """Asks the profile that has tools to approve."""
    await chat.page.get_by_label("Profile").select_option("agent")
    await chat.say(prompt)


# The operator's desk: first, while no other conversation is in its list


@scene
async def sessions(studio: Studio) -> AsyncIterator[Page]:
    async with _many_states(studio) as carla, studio.tab(LIST, user="operator", width=1440) as chat:
        for conv_id, state in (("order-0482", "Paused"), ("greeting", "Idle")):
            row = chat.page.locator(f'[data-key="{conv_id}"]')
            await expect(row).to_contain_text(state)
        # At last, because the demo's tool gives up soon.
        await _ask(carla, "slow-lookup", "slow tool", profile="agent")
        row = chat.page.locator('[data-key="slow-lookup"]')
        await expect(row).to_contain_text("Waiting for demo_task")
        await chat.page.evaluate("scrollTo(0, 0)")
        yield chat.page


@scene
async def session(studio: Studio) -> AsyncIterator[Page]:
    async with (
        _many_states(studio),
        studio.tab(f"{LIST}order-0482/", user="operator", width=1280, height=1000) as chat,
    ):
        await expect(chat.page.get_by_role("button", name="Run with these")).to_be_visible()
        yield chat.page


# The page


@scene
async def start(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab() as chat:
        for prompt in ("how do I stop an answer", "what is this"):
            await chat.page.goto(studio.server.url)
            await chat.say(prompt)
            await chat.ended()
        await chat.page.goto(studio.server.url)
        yield chat.page


@scene
async def answer(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab(height=900) as chat:
        await chat.say("markdown")
        await chat.ended()
        await chat.live()
        yield chat.page


@scene
async def tools(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab(height=880) as chat:
        await agent(chat, "tools")
        await chat.ended()
        await card(chat, "thinking").first.locator("summary").click()
        await card(chat, "tool_call").first.locator("summary").first.click()
        yield chat.page


@scene
async def approval(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab() as chat:
        await agent(chat, "approve")
        arguments = card(chat, "debugger_pause").get_by_role("textbox", name="Arguments of")
        await arguments.fill('{\n  "text": "A note that I have put right."\n}')
        await expect(chat.page.get_by_role("button", name="Continue with changes")).to_be_visible()
        yield chat.page
        await chat.page.get_by_role("button", name="Abort").click()
        await chat.ended("cancelled")


@scene
async def queue(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab(height=560) as chat:
        await chat.say("slow 60")
        for number, prompt in enumerate(("what is this", "where is my data"), start=1):
            await chat.say(prompt)
            await expect(chat.page.locator("[data-queue] li")).to_have_count(number)
        await expect(chat.answers).to_contain_text("Counting: 1 2 3")
        yield chat.page
        await _stop_all(chat)


@scene
async def ended(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab() as chat:
        await chat.say("slow 60")
        await expect(chat.answers).to_contain_text("Counting: 1 2 3")
        await chat.stop_button.click()
        await chat.ended("cancelled")
        await chat.say("fail")
        await chat.ended("failed", count=2)
        yield chat.page


@scene
async def offline(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab(height=560) as chat:
        await chat.say("where is my data")
        await chat.ended()
        await chat.page.context.set_offline(True)
        await expect(chat.connection).to_contain_text("You are offline")
        yield chat.page


@scene
async def dark(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab(theme="dark", height=600) as chat:
        await chat.say("how do I connect a real model")
        await chat.ended()
        yield chat.page


@scene
async def narrow(studio: Studio) -> AsyncIterator[Page]:
    async with studio.tab(width=320, height=640) as chat:
        await chat.say("calculate 6*7")
        await chat.ended()
        yield chat.page


@asynccontextmanager
async def _many_states(studio: Studio) -> AsyncIterator[Chat]:
    """Conversations of two people, one in each state; ended again after the block.

    Yields a tab of one of them.
    """
    async with studio.tab(user="carla") as carla, studio.tab(user="ben") as ben:
        await _ask(carla, "order-0312", "fail")
        await _ask(carla, "greeting", "hello")
        await _ask(ben, "order-0482", "approve", "and then this", profile="agent")
        await _ask(ben, "long-report", "slow 600", "what is this", "where is my data")
        await _ask(carla, "no-answer", "silent")
        try:
            yield carla
        finally:
            for person, conv_id in (
                (ben, "order-0482"),
                (ben, "long-report"),
                (carla, "slow-lookup"),
                (carla, "no-answer"),
            ):
                await _post(person, "/api/chat/cancel", {"conv_id": conv_id, "queue": True})


async def _ask(chat: Chat, conv_id: str, *prompts: str, profile: str = "") -> None:
    for prompt in prompts:
        path = f"/chat/{profile}" if profile else "/chat"
        assert await _post(chat, path, {"prompt": prompt, "conv_id": conv_id})


async def _post(chat: Chat, path: str, body: dict[str, Any]) -> bool:
    """Whether the server has done as that person asks."""
    url = urljoin(chat.page.url, path)
    cookies = await chat.page.context.cookies(url)
    token = next(cookie["value"] for cookie in cookies if cookie["name"] == "csrftoken")
    answer = await chat.page.request.post(url, data=body, headers={"X-CSRFToken": token})
    return answer.ok


async def _stop_all(chat: Chat) -> None:
    """The picture is taken: nothing of it goes on."""
    removing = chat.page.get_by_role("button", name=re.compile("^Remove"))
    while count := await removing.count():
        await removing.first.click()
        await expect(removing).to_have_count(count - 1)
    await chat.stop_button.click()


async def main(names: list[str]) -> None:
    """Takes the pictures of that name, or all of them and no other stays."""
    if unknown := set(names) - set(SCENES):
        raise SystemExit(f"got {sorted(unknown)}; expected some of: {', '.join(SCENES)}")
    IMAGES.mkdir(parents=True, exist_ok=True)
    if not names:
        for old in IMAGES.glob("*.png"):
            old.unlink()
    expect.set_options(timeout=30_000)
    async with (
        live_server(env=SHARED) as server,
        async_playwright() as playwright,
        await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        ) as browser,
    ):
        server.manage("shell", "-v0", "-c", MAKE_ACCOUNTS)
        studio = Studio(server, browser)
        for name in names or SCENES:
            await take(studio, name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
