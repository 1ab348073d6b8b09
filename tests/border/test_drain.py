"""`manage.py serve` at its end: what runs may end, and everybody is told where to go on."""

from __future__ import annotations

import asyncio
import signal
import sys
from time import monotonic

import pytest

from tests.client import Visitor, visitor
from tests.live import LOSSY, SERVERS, START_SECONDS, LiveServer, live_server

RESTARTING = 1012
COMPLAINTS = ("Traceback", "was destroyed", "never awaited", "Segmentation fault", "took too long")


AND_LOSSY = [*SERVERS, pytest.param(LOSSY, marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", AND_LOSSY)
async def test_what_runs_ends_first_and_nothing_new_begins(kind: str):
    async with live_server(kind) as server, visitor(server.url) as anna:
        async with anna.socket("running") as watching, anna.socket("idle") as idle:
            await watching.until("timeline.snapshot")
            await idle.until("timeline.snapshot")
            await anna.chat("slow 4", "running")
            await anna.post("/chat", {"prompt": "hello", "conv_id": "running"})
            await watching.until("llm.delta")
            server.process.send_signal(signal.SIGTERM)

            assert await idle.closed() == RESTARTING
            await nothing_new_begins(anna)
            async with anna.socket("running") as late:
                await late.until("inference.finished")
                assert await late.closed() == RESTARTING
            frames = await watching.until("inference.finished")
            assert await watching.closed() == RESTARTING
        await ended_well(server)

    assert frames[-1]["data"]["status"] == "completed"


async def nothing_new_begins(anna: Visitor) -> None:
    refused = await anna.post("/chat", {"prompt": "hello", "conv_id": "idle"})
    assert refused.status_code == 503
    assert refused.json()["code"] == "draining"
    assert int(refused.headers["Retry-After"]) > 0
    readiness = await anna.http.get("/readyz")
    assert (readiness.status_code, readiness.json()["failing"]) == (503, ["draining"])
    async with anna.socket("idle") as refused_socket:
        told = await refused_socket.frame()
        assert (told["type"], told["data"]["code"]) == ("ws.error", "draining")
        assert await refused_socket.closed() == RESTARTING


@pytest.mark.parametrize("kind", AND_LOSSY)
async def test_what_does_not_end_in_time_is_cancelled_and_says_why(kind: str):
    env = {"WEBCHAT_DRAIN_TIMEOUT": "1"}
    async with live_server(kind, env=env) as server, visitor(server.url) as anna:
        async with anna.socket("running") as watching:
            await watching.until("timeline.snapshot")
            await anna.chat("slow 60", "running")
            await watching.until("llm.delta")
            asked = monotonic()
            server.process.send_signal(signal.SIGTERM)
            end = (await watching.until("inference.finished"))[-1]
            assert await watching.closed() == RESTARTING
        await ended_well(server)
        took = monotonic() - asked

    assert (end["data"]["status"], end["data"]["error"]) == ("cancelled", "server restarting")
    assert 1 <= took < 11


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]], ids=["interrupt", "twice"]
)
async def test_who_does_not_want_to_wait_need_not(signals: list[signal.Signals]):
    async with live_server("daphne") as server, visitor(server.url) as anna:
        async with anna.socket("running") as watching:
            await watching.until("timeline.snapshot")
            await anna.chat("slow 60", "running")
            await watching.until("llm.delta")
            server.process.send_signal(signals[0])
            for number in signals[1:]:
                # Two signals sent at once may arrive as one.
                while (await anna.http.get("/readyz")).status_code == 200:
                    pass
                server.process.send_signal(number)
            end = (await watching.until("inference.finished"))[-1]
            assert await watching.closed() == RESTARTING
        await ended_well(server)

    assert end["data"]["status"] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(("prompt", "code"), [("swallow", 0), ("block 600", 1)])
async def test_code_that_heeds_nothing_holds_no_process_up(kind: str, prompt: str, code: int):
    env = {"WEBCHAT_DRAIN_TIMEOUT": "1", "DJANGO_SETTINGS_MODULE": "tests.standins.stubborn"}
    async with live_server(kind, env=env) as server, visitor(server.url) as anna:
        async with anna.socket("running") as watching:
            await watching.until("timeline.snapshot")
            await anna.chat(prompt, "running")
            await watching.until("llm.delta")
            asked = monotonic()
            server.process.send_signal(signal.SIGTERM)
            if code == 0:
                end = (await watching.until("inference.finished"))[-1]["data"]
                assert (end["status"], end["error"]) == ("cancelled", "server restarting")
                assert await watching.closed() == RESTARTING
            assert await server.process.wait() == code, server.log
            took = monotonic() - asked
        assert "stubborn" in server.log

    assert took < 11


async def test_a_port_that_is_taken_is_said_in_words():
    async with live_server("daphne") as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "manage.py", "serve", "--port", str(server.port)),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(START_SECONDS):
            _, said = await process.communicate()

    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{server.port}" in said.decode()
    assert "--port" in said.decode()


async def ended_well(server: LiveServer) -> None:
    assert await server.ended() == 0, server.log
    assert [word for word in COMPLAINTS if word in server.log] == [], server.log
