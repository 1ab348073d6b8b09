"""How tasks that talk to Redis are ended."""

from __future__ import annotations

import asyncio

AGAIN_SECONDS = 0.2


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancels tasks, and returns when they have ended.

    What redis-py is cancelled in may come out as an error of the connection, which the task bears:
    so it is asked until it goes.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
