"""The line breaks, lies and stutters; the page stays true and says how it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, WebSocketRoute, expect

from tests.browser.conftest import OpenChat
from tests.browser.wire import Wire, wire_to
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

Event = dict[str, Any]
SLOWLY = re.compile(r"Counting: 1 2")


@pytest_asyncio.fixture(loop_scope="session")
async def wire(server: LiveServer):
    async with wire_to(server.port) as cable:
        yield cable


class Sockets:
    """What went over the page's sockets: their addresses, and the events that came."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        self.events: list[Event] = []
        self.sent: list[Event] = []
        page.on("websocket", self._opened)

    def _opened(self, socket: Any) -> None:
        self.urls.append(socket.url)
        socket.on("framereceived", lambda text: self.events.append(json.loads(text)["event"]))
        socket.on("framesent", lambda text: self.sent.append(json.loads(text)))

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]


async def meddle(page: Page, change: Callable[[Event], list[Event] | int]) -> list[str]:
    """Puts `change` between server and page: the events to pass on, or a code to close with.

    Returns the addresses of the sockets, as they are opened.
    """
    addresses: list[str] = []

    def opened(socket: WebSocketRoute) -> None:
        addresses.append(socket.url)
        server = socket.connect_to_server()

        async def receive(message: str | bytes) -> None:
            outcome = change(json.loads(message)["event"])
            if isinstance(outcome, int):
                await socket.close(code=outcome)
                return
            for event in outcome:
                socket.send(json.dumps({"sem": True, "event": event}))

        server.on_message(receive)

    await page.route_web_socket("**/ws?*", opened)
    return addresses


async def test_scripts_go_on_from_the_page_s_own_cursor(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    sockets = Sockets(chat.page)
    await chat.say("slow 3")
    await chat.ended()
    assert "cursor=" in sockets.urls[0]
    assert sockets.of("ws.hello")[0]["data"]["resumed"] is True
    assert not sockets.of("timeline.snapshot")


async def test_a_cut_line_is_shown_and_the_answer_goes_on_from_the_cursor(
    wire: Wire, visit: OpenChat
):
    chat = await visit(wire.url)
    sockets = Sockets(chat.page)
    await chat.say("slow 6")
    await expect(chat.answers).to_have_text(SLOWLY)
    wire.open = False
    wire.cut()
    await expect(chat.connection).to_have_attribute("data-state", "waiting")
    await expect(chat.connection).to_contain_text(re.compile(r"Reconnecting in \d+ s"))
    wire.open = True
    await chat.live()
    await chat.ended()
    await chat.shows_the_whole_timeline()
    assert all(hello["data"]["resumed"] for hello in sockets.of("ws.hello"))
    assert not sockets.of("timeline.snapshot")
    seqs = [event["seq"] for event in sockets.events if "seq" in event]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_a_person_may_try_now(wire: Wire, visit: OpenChat):
    chat = await visit(wire.url)
    await chat.say("hang")
    await chat.live()
    wire.open = False
    wire.cut()
    retry = chat.page.get_by_role("button", name="Try now")
    await expect(retry).to_be_visible()
    wire.open = True
    await retry.click()
    await chat.live()
    await chat.stop_button.click()
    await chat.ended("cancelled")


async def test_being_offline_is_said_and_ends_by_itself(server: LiveServer, visit: OpenChat):
    chat = await visit(server.url)
    await chat.say("slow 4")
    await expect(chat.answers).to_have_text(SLOWLY)
    await chat.page.context.set_offline(True)
    await expect(chat.connection).to_contain_text("You are offline")
    await chat.say("while offline")
    await expect(chat.error).to_contain_text("cannot be reached")
    await expect(chat.prompt).to_have_value("while offline")
    await chat.page.context.set_offline(False)
    await chat.live()
    await expect(chat.error).to_be_empty()
    await expect(chat.prompt).to_have_value("while offline")
    await chat.ended()
    await chat.shows_the_whole_timeline()


async def test_a_server_that_forgot_the_conversation_ends_the_attempts(
    wire: Wire, echo_server: LiveServer, visit: OpenChat
):
    chat = await visit(wire.url)
    await chat.say("what is this")
    await chat.ended()
    await chat.live()
    wire.open = False
    wire.cut()
    await expect(chat.connection).to_have_attribute("data-state", "waiting")
    # It knows the cookie and no conversation, like one that was started anew.
    wire.target = echo_server.port
    wire.open = True
    await expect(chat.connection).to_have_attribute("data-state", "stopped", timeout=60_000)
    await expect(chat.answers).to_contain_text("Webchat")


async def test_a_missing_frame_is_fetched_by_reconnecting(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")
    dropped: list[Event] = []

    def drop_one(event: Event) -> list[Event]:
        if event["type"] == "llm.delta" and event["data"]["offset"] > 0 and not dropped:
            dropped.append(event)
            return []
        return [event]

    addresses = await meddle(chat.page, drop_one)
    await chat.page.goto(server.url)
    await chat.say("slow 4")
    await chat.ended()
    await chat.shows_the_whole_timeline()
    assert dropped
    assert len(addresses) == 2
    assert f".{dropped[0]['seq'] - 1}" in addresses[1]


async def test_a_frame_that_comes_twice_counts_once(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")
    addresses = await meddle(chat.page, lambda event: [event] * (2 if "seq" in event else 1))
    await chat.page.goto(server.url)
    await chat.say("slow 2")
    await chat.ended()
    await chat.shows_the_whole_timeline()
    assert len(addresses) == 1


async def test_a_delta_out_of_place_is_answered_by_a_snapshot(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")
    bent: list[int] = []

    def bend_one(event: Event) -> list[Event]:
        if event["type"] == "llm.delta" and event["data"]["offset"] > 0 and not bent:
            bent.append(event["seq"])
            event["data"]["offset"] += 1
        return [event]

    addresses = await meddle(chat.page, bend_one)
    await chat.page.evaluate("console.error = () => {}")
    await chat.page.add_init_script("console.error = () => {}")
    await chat.page.goto(server.url)
    await chat.say("slow 4")
    await chat.ended()
    await chat.shows_the_whole_timeline()
    assert bent
    assert "cursor=" not in addresses[1]


async def test_an_unknown_frame_is_passed_over(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")

    def unknown(event: Event) -> list[Event]:
        noise = {"type": "ws.novelty", "id": "x", "data": {}}
        if event["type"] == "llm.start":
            event["type"] = "hologram.start"
        return [noise, event]

    addresses = await meddle(chat.page, unknown)
    await chat.page.goto(server.url)
    await chat.say("what is this")
    await chat.ended()
    await expect(chat.answers).to_contain_text("Webchat")
    assert len(addresses) == 1


@pytest.mark.parametrize(
    ("code", "words", "offered"),
    [
        (4501, "You are signed out", "Log in again"),
        (4503, "no longer have access", "Try now"),
        (4509, "has ended", "Try now"),
        (4529, "Too many", "Try now"),
    ],
)
async def test_a_code_from_4500_on_stops_and_tells_why(
    server: LiveServer, visit: OpenChat, code: int, words: str, offered: str
):
    chat = await visit("about:blank")
    addresses = await meddle(
        chat.page, lambda event: code if event["type"] == "ws.hello" else [event]
    )
    await chat.page.goto(server.url)
    await chat.say("what is this")
    await expect(chat.connection).to_have_attribute("data-state", "stopped")
    await expect(chat.connection).to_contain_text(words)
    await expect(chat.connection.get_by_text(offered, exact=True)).to_be_visible()
    assert len(addresses) == 1


@pytest.mark.parametrize("code", [1000, 1011, 1012, 4008, 4010])
async def test_a_code_below_4500_reconnects_with_the_cursor(
    server: LiveServer, visit: OpenChat, code: int
):
    chat = await visit("about:blank")
    closed: list[Event] = []

    def close_once(event: Event) -> list[Event] | int:
        if event["type"] == "llm.delta" and not closed:
            closed.append(event)
            return code
        return [event]

    addresses = await meddle(chat.page, close_once)
    await chat.page.goto(server.url)
    await chat.say("slow 2")
    await chat.ended()
    await chat.shows_the_whole_timeline()
    assert len(addresses) == 2
    assert "cursor=" in addresses[1]


async def test_the_server_s_own_words_explain_a_refusal(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")

    def refuse(event: Event) -> list[Event] | int:
        if event["type"] == "ws.hello":
            data = {"code": "too_many_sockets", "message": "You have 20 sockets; close one."}
            return [{"type": "ws.error", "id": "x", "data": data}]
        return 4529

    await meddle(chat.page, refuse)
    await chat.page.goto(server.url)
    await chat.say("slow 1")
    await expect(chat.connection).to_contain_text("You have 20 sockets; close one.")


async def test_a_ping_is_answered_with_the_last_seq(server: LiveServer, visit: OpenChat):
    chat = await visit("about:blank")
    pongs: list[Event] = []

    def opened(socket: WebSocketRoute) -> None:
        hello = {"type": "ws.hello", "id": "x", "data": HELLO}
        ping = {"type": "ws.ping", "id": "x", "data": {"headSeq": 0, "serverTime": 0}}
        socket.on_message(lambda message: pongs.append(json.loads(message)))
        for event in (hello, ping):
            socket.send(json.dumps({"sem": True, "event": event}))

    await chat.page.route_web_socket("**/ws?*", opened)
    await chat.page.goto(server.url)
    await chat.say("what is this")
    await chat.live()
    cursor = await chat.page.locator("[data-cursor]").get_attribute("data-cursor")
    assert cursor
    assert pongs == [{"type": "ws.pong", "seq": int(cursor.split(".")[1])}]


@pytest.mark.parametrize(
    ("ping", "patience_ms"),
    [(None, 41_000), ({"headSeq": 10**6, "serverTime": 0}, 6_000)],
    ids=["silence", "head far ahead"],
)
async def test_a_line_that_gives_nothing_more_is_given_up(
    server: LiveServer, visit: OpenChat, ping: Event | None, patience_ms: int
):
    chat = await visit("about:blank")
    addresses: list[str] = []

    def opened(socket: WebSocketRoute) -> None:
        addresses.append(socket.url)
        socket.on_message(lambda message: None)
        events = [{"type": "ws.hello", "id": "x", "data": HELLO}]
        if ping is not None:
            events.append({"type": "ws.ping", "id": "x", "data": ping})
        for event in events:
            socket.send(json.dumps({"sem": True, "event": event}))

    await chat.page.route_web_socket("**/ws?*", opened)
    await chat.page.clock.install()
    await chat.page.goto(server.url)
    await chat.say("what is this")
    await chat.live()
    await chat.page.clock.fast_forward(patience_ms)
    # The wait before the next attempt is a part of a second; how much of it is left is chance.
    for _ in range(2):
        await chat.page.clock.fast_forward(1_000)
    await chat.live()
    assert len(addresses) == 2


HELLO: Event = {
    "convId": "x",
    "sessionId": "x",
    "runtimeKey": "default",
    "serverTime": 0,
    "protocol": 1,
    "epoch": 1,
    "headSeq": 0,
    "cursor": "1.0",
    "resumed": True,
    "missed": 0,
    "running": False,
    "inferenceId": None,
    "queueDepth": 0,
    "heartbeatMs": 25_000,
}
