"""SIGTERM in mid-answer to a server started by its own command: nobody is left guessing."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from time import monotonic

import pytest
from websockets.exceptions import ConnectionClosed

from tests.client import Frame, Socket, visitor
from tests.live import SERVERS, STOP_SECONDS, live_server

COME_BACK = {1001, 1006, 1011, 1012, 1013}
SANE = {0, -signal.SIGTERM}  # uvicorn ends by the signal it was sent
COMPLAINTS = ("Traceback", "was destroyed", "never awaited", "Segmentation fault", "took too long")


@pytest.mark.parametrize("kind", SERVERS)
async def test_the_process_ends_by_itself_and_its_tabs_are_told_to_come_back(kind: str, conv: str):
    env = {"PYTHONFAULTHANDLER": "1"}
    async with live_server(kind, env=env, by_hand=True) as server, visitor(server.url) as anna:
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(anna.socket(conv)) for _ in range(2)]
            for tab in sockets:
                await tab.until("timeline.snapshot")
            await anna.chat("slow 30", conv)
            asked = monotonic()
            server.process.send_signal(signal.SIGTERM)
            ends = [await last_words(tab) for tab in sockets]
        code = await server.ended()
        took = monotonic() - asked
        log = server.log

    assert took < STOP_SECONDS
    assert code in SANE, log
    assert [word for word in COMPLAINTS if word in log] == [], log
    # uvicorn closes its sockets before it says that it will stop; Daphne's see the end.
    for end in ends if kind == "daphne" else []:
        assert end["type"] == "inference.finished"
        assert end["data"]["status"] == "cancelled"
        assert end["data"]["error"] == "server restarting"


async def last_words(tab: Socket) -> Frame:
    """The last frame before the server closes; it must close so that a client comes back."""
    frame: Frame = {}
    try:
        while True:
            frame = await tab.frame()
    except ConnectionClosed:
        assert tab.websocket.close_code in COME_BACK
        return frame
