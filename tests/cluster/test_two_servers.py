"""Two real servers that share one Redis: whoever is asked, it is one service."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.client import Visitor, stranger, text_of, visitor
from tests.cluster.conftest import LEASE
from tests.live import LiveServer, live_server
from tests.rules import broken_rules

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


@asynccontextmanager
async def at(server: LiveServer, known: Visitor) -> AsyncIterator[Visitor]:
    """The same visitor, at another server."""
    async with stranger(server.url) as http:
        for cookie in known.http.cookies.jar:
            http.cookies.set(cookie.name, cookie.value or "", domain=cookie.domain)
        yield Visitor(server.url, http)


@pytest_asyncio.fixture(loop_scope="session")
async def here(first: LiveServer) -> AsyncIterator[Visitor]:
    async with visitor(first.url) as anna:
        yield anna


@pytest_asyncio.fixture(loop_scope="session")
async def there(second: LiveServer, here: Visitor) -> AsyncIterator[Visitor]:
    async with at(second, here) as anna:
        yield anna


@pytest.fixture
def conv() -> str:
    return str(uuid4())


async def timeline(visitor: Visitor, conv: str) -> object:
    shown = await visitor.get("/api/timeline", conv_id=conv)
    del shown["serverTimeMs"]
    return shown


async def test_an_answer_reaches_the_sockets_of_every_server(
    here: Visitor, there: Visitor, conv: str
):
    async with here.socket(conv) as near, there.socket(conv) as far:
        await near.until("timeline.snapshot")
        await far.until("timeline.snapshot")
        await there.chat("what is this", conv)
        told = await near.until("inference.finished")
        assert told == await far.until("inference.finished")
    assert not broken_rules(told)
    assert await timeline(here, conv) == await timeline(there, conv)


async def test_the_next_prompt_elsewhere_has_the_whole_history(
    here: Visitor, there: Visitor, conv: str
):
    await here.hear("what is this", conv)
    [*_, end] = await there.hear("what did I ask?", conv)
    first, second = (
        entity["props"]["usage"]["inputTokens"]
        for entity in (await here.get("/api/timeline", conv_id=conv))["entities"]
        if entity["kind"] == "inference"
    )
    assert end["data"]["status"] == "completed"
    assert second > first


async def test_a_socket_resumes_at_another_server(here: Visitor, there: Visitor, conv: str):
    async with here.socket(conv) as near:
        await near.until("timeline.snapshot")
        await here.chat("what is this", conv)
        seen = await near.until("llm.start")
    cursor = near.cursor
    async with there.socket(conv, cursor=cursor) as far:
        hello = await far.frame()
        assert hello["data"]["resumed"]
        seen += await far.until("inference.finished")
    assert [frame["seq"] for frame in seen if "seq" in frame] == list(range(1, seen[-1]["seq"] + 1))
    assert not broken_rules([frame for frame in seen if "seq" in frame])


async def test_any_server_takes_any_word_to_a_running_inference(
    here: Visitor, there: Visitor, conv: str
):
    async with there.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        started = await here.chat("hang", conv)
        queued = await there.post("/chat", {"prompt": "what is this", "conv_id": conv})
        assert queued.status_code == 202
        again = await here.post("/chat", {"prompt": "hang", "conv_id": conv, "policy": "reject"})
        assert again.status_code == 409
        stopped = await there.post("/api/chat/cancel", {"conv_id": conv})
        assert stopped.json()["inference_id"] == started["inference_id"]
        first = await socket.until("inference.finished")
        second = await socket.until("inference.finished")
    assert [frames[-1]["data"]["status"] for frames in (first, second)] == [
        "cancelled",
        "completed",
    ]


async def test_a_key_is_answered_alike_by_every_server(here: Visitor, there: Visitor, conv: str):
    key = str(uuid4())
    body = {"prompt": "what is this", "conv_id": conv}
    one = await here.post("/chat", body, Idempotency_Key=key)
    other = await there.post("/chat", body, Idempotency_Key=key)
    assert one.json()["inference_id"] == other.json()["inference_id"]
    new = await there.post("/chat", {**body, "prompt": "else"}, Idempotency_Key=key)
    assert new.status_code == 422


async def test_a_pause_is_decided_from_another_server_and_once(
    here: Visitor, there: Visitor, conv: str
):
    async with there.socket(conv, profile="agent") as socket:
        await socket.until("timeline.snapshot")
        await here.chat("approve", conv, profile="agent")
        [*_, pause] = await socket.until("debugger.pause")
        path = "/api/debug/continue"
        decision = {"conv_id": conv, "pause_id": pause["id"], "decision": "continue"}
        assert (await there.post(path, decision)).status_code == 200
        [*_, end] = await socket.until("inference.finished")
        assert end["data"]["status"] == "completed"
        late = await here.post(path, {**decision, "decision": "abort"})
    assert late.status_code == 409
    assert "continue" in late.text


async def test_the_answer_of_a_server_that_died_ends_and_the_next_prompt_runs(
    first: LiveServer, here: Visitor, there: Visitor, shared_env: dict[str, str], conv: str
):
    env = {**shared_env, "WEBCHAT_STATE_DIR": str(first.state)}
    async with (
        live_server("uvicorn", env=env) as doomed,
        at(doomed, here) as anna,
        there.socket(conv) as socket,
    ):
        await socket.until("timeline.snapshot")
        await anna.chat("slow 100", conv)
        seen = await socket.until("llm.delta")
        queued = await there.post("/chat", {"prompt": "what is this", "conv_id": conv})
        assert queued.status_code == 202
        os.kill(doomed.process.pid, signal.SIGKILL)
        died = monotonic()
        seen += await socket.until("inference.finished")
        assert monotonic() - died < LEASE + 5
        lost = seen[-1]
        seen += await socket.until("inference.finished")
    assert [lost["data"]["status"], seen[-1]["data"]["status"]] == ["lost", "completed"]
    frames = [frame for frame in seen if "seq" in frame]
    assert not broken_rules(frames)
    partial = text_of(frames[: frames.index(lost)])
    entities = (await here.get("/api/timeline", conv_id=conv))["entities"]
    [answer, _] = [e for e in entities if e["props"].get("role") == "assistant"]
    assert (answer["props"]["content"], answer["props"]["status"]) == (partial, "failed")
