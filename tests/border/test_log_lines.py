"""The log of real servers: whoever writes, it is one JSON object a line, without cookies."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeAlias

from tests.client import PATIENCE, Visitor, stranger
from tests.live import METRICS_TOKEN, LiveServer

Line: TypeAlias = dict[str, Any]

CANARY = "canary-of-the-log"


async def lines(server: LiveServer, *, until: str, conv_id: str | None = None) -> list[Line]:
    """All lines, once there is one of that event (in that conversation, when named)."""
    async with asyncio.timeout(PATIENCE):
        while True:
            # A line that is being written has no end yet.
            whole = server.whole_log.rpartition("\n")[0].splitlines()
            # What the command says on stdout is for who started it.
            found = [json.loads(line) for line in whole if not line.startswith("Webchat on ")]
            for line in found:
                if line["event"] == until and conv_id in (None, line.get("conv_id")):
                    return found
            await asyncio.sleep(0.05)


async def test_every_line_is_a_json_object_whoever_wrote_it(
    server: LiveServer, anna: Visitor, bert: Visitor, conv: str
):
    await anna.hear(f"hello {CANARY}", conv)
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        await anna.chat("fail at once", conv)
        await socket.until("inference.finished")
        for _ in range(5):
            await socket.send("nonsense")
        assert await socket.closed() == 4513
    assert (await anna.http.get("/nothing-here")).status_code == 404
    assert await bert.refused(conv) == 403
    assert await anna.refused(conv, origin="http://elsewhere.example") == 403
    async with stranger(server.url) as http:
        await http.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})

    written = await lines(server, until="a socket closed: bad_request", conv_id=conv)
    assert all(line.keys() >= {"timestamp", "level", "logger", "event"} for line in written)
    assert {line["logger"].split(".")[0] for line in written} >= {
        *("django", "chat", "sessions_app", "webchat"),
        "daphne" if "daphne" in server.whole_log else "uvicorn",
    }
    mine = [line for line in written if line.get("conv_id") == conv]
    assert [line["event"] for line in mine if line["logger"] == "sessions_app.observing"] == [
        *("inference started", "inference completed", "inference started", "inference failed")
    ]
    assert [line["event"] for line in mine if line["logger"] == "chat.consumers"] == [
        *("a socket opened", "a socket closed: client"),
        *("a socket opened", "a socket closed: bad_request"),
    ]
    refused = [line["event"] for line in written if "was refused" in line["event"]]
    assert "a socket was refused: the conversation is somebody else's" in refused
    assert any("its Origin is not one of ours" in event for event in refused)


async def test_a_request_is_a_line_with_its_status_and_no_control_character(
    server: LiveServer, anna: Visitor
):
    await anna.http.get(f"/{CANARY}%0d%0a%1b[31m")
    event = f"GET /{CANARY}\\r\\n\\x1b[31m"
    [line] = [line for line in await lines(server, until=event) if line["event"] == event]
    assert (line["status"], line["client"]) == (404, "127.0.0.1")


async def test_no_prompt_cookie_or_token_is_in_it(server: LiveServer, anna: Visitor, conv: str):
    await anna.hear(f"hello {CANARY}-prompt", conv)
    await lines(server, until="inference completed", conv_id=conv)
    text = server.log
    assert f"{CANARY}-prompt" not in text
    assert METRICS_TOKEN not in text
    for cookie in anna.http.cookies.jar:
        assert cookie.value is not None
        assert cookie.value not in text
