"""A real browser, and pages that watch themselves: a test may leave no error and no request."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.browser.chat import Chat
from tests.browser.echo import echo_model
from tests.live import SHARED, WITH_APPS, LiveServer, live_server

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ON_REDIS = pytest.param("uvicorn-redis", marks=pytest.mark.slow)
CLOSE_SECONDS = 30.0
OURS = ("http://127.0.0.1:", "data:")

OpenChat: TypeAlias = Callable[..., Awaitable[Chat]]

WATCH = """
window.__violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=10_000)
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        yield running
        async with asyncio.timeout(CLOSE_SECONDS):
            await running.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["daphne", ON_REDIS])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[LiveServer]:
    """The default server; what differs between servers is not for a browser to find out.

    In `make test-all` once more where conversations lie in Redis.
    """
    async with live_server(request.param, env=SHARED) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["uvicorn", ON_REDIS])
async def echo_server(request: pytest.FixtureRequest) -> AsyncIterator[LiveServer]:
    """A server whose model says again what it is told, one character at a time, with apps."""
    async with echo_model() as model:
        env = {
            "WEBCHAT_MODEL": "openai-chat:echo",
            "OPENAI_BASE_URL": f"{model.url}/v1",
            "DJANGO_SETTINGS_MODULE": WITH_APPS,
            **SHARED,
        }
        async with live_server(request.param, env=env) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[OpenChat]:
    """Opens a page of a new visitor.

    `like=chat` opens one more tab of that visitor, `cookies_of=chat` another browser of theirs.
    """
    async with AsyncExitStack() as stack:

        async def opened(
            url: str, *, like: Chat | None = None, cookies_of: Chat | None = None, **options: Any
        ) -> Chat:
            if like is not None:
                context = like.page.context
            else:
                if cookies_of is not None:
                    options["storage_state"] = await cookies_of.page.context.storage_state()
                context = await stack.enter_async_context(_context(browser, **options))
            page = await stack.enter_async_context(_watched(context))
            await page.goto(url)
            return Chat(page)

        yield opened


@asynccontextmanager
async def _context(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """A browser profile that may ask nobody but our servers on loopback."""
    context = await browser.new_context(**options)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    await context.add_init_script(WATCH)
    yield context
    async with asyncio.timeout(CLOSE_SECONDS):
        await context.close()
    foreign = [url for url in asked if not url.startswith(OURS)]
    assert not foreign, foreign


@asynccontextmanager
async def _watched(context: BrowserContext) -> AsyncIterator[Page]:
    """A tab that must end without errors of its scripts, violations of its policy, or a dialog."""
    page = await context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(f"pageerror: {error}"))
    page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: troubles.extend(_trouble(message.type, message.text)))
    yield page
    assert await page.evaluate("window.__pwned") is None
    assert not await page.evaluate("window.__violations ?? []")
    async with asyncio.timeout(CLOSE_SECONDS):
        await page.close()
    assert not troubles, troubles


def _trouble(kind: str, text: str) -> list[str]:
    """What the console says that is our fault: a refused request or a cut line is not."""
    network = ("Failed to load resource", "WebSocket connection to")
    return [f"{kind}: {text}"] if kind == "error" and not text.startswith(network) else []
