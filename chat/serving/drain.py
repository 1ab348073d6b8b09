"""How a process goes without anybody losing an answer that could still be finished."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..hub import Hub
from ..pool import CLOSE_RESTARTING, Connection

SOCKETS_PER_SECOND = 500
LONGEST_SPREAD = 10.0
STEP = 0.1


async def drain(hub: Hub, timeout: float) -> None:
    """Takes no new work, lets what runs end within `timeout` seconds, and closes the hub.

    Sockets are told to come back (1012) one after the other, so that they do not all arrive
    elsewhere at once; one that watches a running inference only after it was sent that inference's
    end. Cancelling this leaves out the rest of the waiting: close the hub then.
    """
    hub.draining = True
    farewell = asyncio.create_task(
        _say_farewell(hub.streams.connections(), longest=min(LONGEST_SPREAD, timeout)),
        name="drain-sockets",
    )
    try:
        await hub.sessions.drain(timeout)
        await farewell
    finally:
        farewell.cancel()
        await asyncio.wait({farewell})
    await hub.aclose()


async def _say_farewell(connections: Sequence[Connection], *, longest: float) -> None:
    seconds = min(longest, len(connections) / SOCKETS_PER_SECOND)
    steps = max(1, round(seconds / STEP))
    for step in range(steps):
        for connection in connections[step::steps]:
            connection.leave(CLOSE_RESTARTING)
        if step < steps - 1:
            await asyncio.sleep(STEP)
