"""The command: `make bench-page`, or `python -m bench.page --messages 2000 --kilobytes 200`.

It opens a long conversation in Chromium, streams a long answer into it, loads it again, has it take
a snapshot of everything, and tells what each cost the page's main thread. It counts the thread's
CPU: what else runs on the machine makes frames rarer, but a millisecond no longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from playwright.async_api import Browser, Page, Route, ViewportSize, async_playwright

from .markdown import PIECE_CHARACTERS
from .orders import Orders
from .servers import Machinery, Ours
from .trace import CATEGORIES, Trace

SERVER = "webchat uvicorn"
PER_SECOND = 250
PATIENCE_MS = 120_000
# Without the checks: a page that was altered on its way is not from loopback for them.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-features=LocalNetworkAccessChecks",
]
WINDOW: ViewportSize = {"width": 1280, "height": 900}
SHORT = Orders(frames=16, markdown=True).encode()


def main() -> None:
    asked = _arguments()
    whole = asyncio.run(_run(asked.messages, asked.kilobytes))
    if asked.json is not None:
        asked.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument(
        "--messages", type=int, default=2000, help="said before; default %(default)s"
    )
    parser.add_argument("--kilobytes", type=int, default=200, help="streamed; default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


async def _run(messages: int, kilobytes: int) -> dict[str, object]:
    """Prints a line for each phase as it is measured; returns all of them."""
    phases: dict[str, Trace] = {}
    async with (
        Machinery.prepared((SERVER,)) as machinery,
        machinery.server(SERVER) as server,
        _chromium() as browser,
    ):
        assert isinstance(server, Ours)
        conv = str(uuid4())
        await _said_before(server, conv, messages // 2)
        print(f"{messages} messages, then {kilobytes} kB; Chromium {browser.version}", flush=True)
        async with _page(browser, server) as page:
            loading = await _loading(browser, page, f"{server.url}/c/{conv}/")
            _tell(phases, "load", loading)
            streamed = await _streaming(browser, page, server, conv, kilobytes)
            _tell(phases, "first half", streamed.between("begin", "half"))
            _tell(phases, "second half", streamed.between("half", "end"))
        async with _page(browser, server) as page:
            _tell(phases, "load with it", await _loading(browser, page, f"{server.url}/c/{conv}/"))
        async with _page(browser, server) as page:
            await page.route("**/c/*/", _with_a_cursor_of_another_life)
            _tell(phases, "snapshot", await _loading(browser, page, f"{server.url}/c/{conv}/"))
    return {
        "messages": messages,
        "kilobytes": kilobytes,
        "at": time.time(),
        "phases": {name: _numbers(trace) for name, trace in phases.items()},
    }


@asynccontextmanager
async def _chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def _page(browser: Browser, server: Ours) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport=WINDOW)
    await context.add_cookies(
        [
            {"name": name, "value": value, "url": server.url}
            for name, value in server.cookies.items()
        ]
    )
    yield await context.new_page()
    await context.close()


async def _said_before(server: Ours, conv: str, prompts: int) -> None:
    wire = await server.open(conv)
    for _ in range(prompts):
        end = wire.end()
        await server.say(conv, SHORT)
        await end
    wire.close()


async def _loading(browser: Browser, page: Page, url: str) -> Trace:
    greeted = asyncio.Event()
    page.on("websocket", lambda socket: socket.on("framereceived", lambda _: greeted.set()))
    await browser.start_tracing(page=page, categories=list(CATEGORIES))
    await page.goto(url, timeout=PATIENCE_MS)
    # Not the page: to look for an element costs it more than to show what came.
    async with asyncio.timeout(PATIENCE_MS / 1000):
        await greeted.wait()
    await _settled(page)
    return await _traced(browser)


async def _streaming(
    browser: Browser, page: Page, server: Ours, conv: str, kilobytes: int
) -> Trace:
    pieces = kilobytes * 1000 // PIECE_CHARACTERS
    orders = Orders(frames=pieces, per_second=PER_SECOND, markdown=True)
    wire = await server.open(conv)
    end = wire.end()
    await browser.start_tracing(page=page, categories=list(CATEGORIES))
    await _mark(page, "begin")
    await server.say(conv, orders.encode())
    await asyncio.sleep(pieces / PER_SECOND / 2)
    await _mark(page, "half")
    # Not the page: to be asked again and again costs it more than what is measured.
    await end
    wire.close()
    await _settled(page)
    await _mark(page, "end")
    return await _traced(browser)


async def _settled(page: Page) -> None:
    await asyncio.sleep(2)
    await page.evaluate("new Promise(requestAnimationFrame)")


async def _mark(page: Page, name: str) -> None:
    await page.evaluate("(name) => void performance.mark(name)", name)


async def _traced(browser: Browser) -> Trace:
    return Trace.of(json.loads(await browser.stop_tracing())["traceEvents"])


async def _with_a_cursor_of_another_life(route: Route) -> None:
    """As if the server had begun again since: a snapshot comes, and all cards are shown anew."""
    response = await route.fetch()
    body = re.sub(r'data-cursor="[^"]*"', 'data-cursor="1.0"', await response.text())
    await route.fulfill(response=response, body=body)


def _tell(phases: dict[str, Trace], name: str, trace: Trace) -> None:
    phases[name] = trace
    numbers = _numbers(trace)
    script, work = numbers["script_ms"], trace.work
    print(
        f"\n{name}: {numbers['flushes']} flushes, script each p50 {script['p50']:.1f}, "
        f"p95 {script['p95']:.1f}, max {script['max']:.1f} ms\n"
        f"  tasks over 50 ms: {numbers['long']} of {len(trace.tasks)}; the largest "
        f"{numbers['largest_task']:.0f} ms\n  "
        + ", ".join(f"{kind} {ms:.0f} [{trace.largest[kind]:.1f}]" for kind, ms in work.items()),
        flush=True,
    )
    for task in trace.long[:3]:
        print(f"  {task.ms:.0f} ms:", {k: round(v, 1) for k, v in task.work.items() if v > 1})


def _numbers(trace: Trace) -> dict[str, Any]:
    script = sorted(ms for _, ms in trace.flushes) or [0.0]
    return {
        "flushes": len(trace.flushes),
        "script_ms": {"p50": _at(script, 0.5), "p95": _at(script, 0.95), "max": script[-1]},
        "tasks": len(trace.tasks),
        "long": len(trace.long),
        "largest_task": max((task.ms for task in trace.tasks), default=0.0),
        "long_tasks": [{"ms": task.ms, **task.work} for task in trace.long],
        "work_ms": trace.work,
        "largest_work_ms": trace.largest,
    }


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]


if __name__ == "__main__":
    main()
