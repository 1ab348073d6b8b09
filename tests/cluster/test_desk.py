"""The operator's desk at one of two servers: it shows, and acts on, what runs at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from cluster import presence
from cluster.presence import Presence
from tests.client import PATIENCE, Visitor, stranger, visitor
from tests.cluster.conftest import HEARD
from tests.live import LiveServer

pytestmark = [pytest.mark.asyncio(loop_scope="session")]

LIST = "/admin/sessions_app/livesession/"


@cache
def operator_of(server: LiveServer) -> tuple[str, str]:
    """A superuser's name and password."""
    told = server.manage("operator", "--username", "desk")
    return "desk", told.partition("password ")[2].split()[0]


@pytest_asyncio.fixture(loop_scope="session")
async def here(first: LiveServer) -> AsyncIterator[Visitor]:
    async with visitor(first.url) as anna:
        yield anna


@pytest_asyncio.fixture(loop_scope="session")
async def desk(first: LiveServer, second: LiveServer) -> AsyncIterator[Visitor]:
    """An operator at the other server."""
    async with visitor(second.url) as operator:
        await operator.sign_in(*operator_of(first))
        yield operator


@pytest.fixture
def conv() -> str:
    return str(uuid4())


async def listed(
    desk: Visitor, conv: str, *, until: Callable[[dict[str, Any] | None], bool]
) -> dict[str, Any]:
    """The conversation's row once it is as it should be."""
    row = None
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = await desk.get("/api/debug/conversations")
            row = next((row for row in rows if row["conv_id"] == conv), None)
            if until(row):
                return row or {}
            await asyncio.sleep(0.2)


async def act(desk: Visitor, conv: str, action: str) -> str:
    """What the admin says after that action."""
    fields = {
        "action": action,
        "confirmed": "yes",
        "csrfmiddlewaretoken": desk.http.cookies["csrftoken"],
    }
    answer = await desk.http.post(f"{LIST}{conv}/", data=fields, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_what_runs_at_one_server_is_listed_and_opened_at_the_other(
    here: Visitor, desk: Visitor, conv: str
):
    async with here.socket(conv) as socket, desk.socket(conv):
        await socket.until("timeline.snapshot")
        await here.chat("hang", conv)
        row = await listed(
            desk, conv, until=lambda row: row is not None and row["running"] and row["sockets"] == 2
        )
        assert row["head_seq"] > 0
        assert conv in (await desk.http.get(LIST)).text

        detail = await desk.get(f"/api/debug/conversations/{conv}")
        assert (detail["state"]["kind"], detail["sockets"]) == ("running", 2)
        assert detail["frames"] == detail["head_seq"] > 0
        events = await desk.get(f"/api/debug/events/{conv}")
        assert [frame["seq"] for frame in events["events"]] == list(
            range(1, detail["head_seq"] + 1)
        )
        page = await desk.http.get(f"{LIST}{conv}/")
        assert "inference.started" in page.text

        assert "Step mode is on" in await act(desk, conv, "step-on")
        assert "asked to end" in await act(desk, conv, "cancel")
        assert (await socket.until("inference.finished"))[-1]["data"]["status"] == "cancelled"


@pytest.mark.parametrize("shared_env", [HEARD], indirect=True)  # the layer alone asks them
async def test_the_sockets_of_every_server_can_be_asked_to_reconnect(
    here: Visitor, desk: Visitor, conv: str
):
    async with here.socket(conv) as near, desk.socket(conv) as far:
        for socket in (near, far):
            await socket.until("timeline.snapshot")
        await here.hear("what is this", conv)
        await listed(desk, conv, until=lambda row: row is not None and row["sockets"] == 2)
        assert "2 sockets were asked to reconnect" in await act(desk, conv, "drop")
        assert await near.closed() == await far.closed() == 4010


async def test_an_idle_session_is_listed_until_it_is_evicted(
    here: Visitor, desk: Visitor, conv: str
):
    await here.hear("what is this", conv)
    row = await listed(desk, conv, until=lambda row: row is not None and not row["running"])
    assert (row["turns"], row["state"]["kind"]) == (1, "idle")
    [ended] = (await desk.get(f"/api/debug/conversations/{conv}"))["inferences"]
    assert (ended["outcome"], ended["model_calls"]) == ("completed", 1)
    assert "history is kept" in await act(desk, conv, "evict")
    await listed(desk, conv, until=lambda row: row is None)
    assert (await here.get("/api/timeline", conv_id=conv))["entities"]
    async with here.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await here.chat("what is this", conv)
        await socket.until("inference.finished")
    await listed(desk, conv, until=lambda row: row is not None and row["turns"] == 2)


async def test_the_owners_list_says_how_far_each_log_is(here: Visitor, second: LiveServer, conv):
    [*_, end] = await here.hear("what is this", conv)
    async with stranger(second.url) as http:
        for cookie in here.http.cookies.jar:
            http.cookies.set(cookie.name, cookie.value or "", domain=cookie.domain)
        there = Visitor(second.url, http)
        [mine] = await there.get("/api/conversations")
    assert (mine["conv_id"], mine["head_seq"]) == (conv, end["seq"])


async def test_a_process_that_died_is_gone_from_what_others_hear(redis_url: str, monkeypatch):
    monkeypatch.setattr(presence, "LASTS_SECONDS", 1)
    monkeypatch.setattr(presence, "TELL_SECONDS", 0.1)
    heard: list[list[bytes]] = []

    async def said() -> bytes:
        return b"here"

    async def until(wanted: list[bytes]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                if heard and heard[-1] == wanted:
                    return
                await asyncio.sleep(0.05)

    async with Redis.from_url(redis_url) as client:
        died, left, hears = (Presence(client, name) for name in ("died", "left", "hears"))
        for other in (died, left):
            other.tell("a-topic", said)
        hears.hear("a-topic", lambda all_said: heard.append(list(all_said)))
        for each in (died, left, hears):
            each.start()
        await until([b"here", b"here"])
        await left.aclose()
        await until([b"here"])
        assert died._task is not None
        died._task.cancel()
        await until([])
        await hears.aclose()
