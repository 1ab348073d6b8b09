"""The HTTP requests under way, which a process that goes answers before it closes what they use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sessions_app.inference.errors import Draining, Unavailable

END_SECONDS = 1.0
"""For what is asked to be answered by itself, and once more for what is ended to say so."""


class Requests:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[object]] = set()
        self._ended: set[asyncio.Task[object]] = set()
        self._closed = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around what makes the answer to a request, in the task that does.

        Raises Draining where none is taken any more, and Unavailable in one that was ended.
        """
        if self._closed:
            raise Draining("the server is restarting; try again in a few seconds")
        task = asyncio.current_task()
        assert task is not None, "a request is answered in a task"
        self._under_way.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise Unavailable(
                "the server is restarting; look at the conversation again in a few seconds, for "
                "what you asked may have been done"
            ) from None
        finally:
            self._under_way.discard(task)
            self._ended.discard(task)

    async def aclose(self) -> None:
        """Takes none any more, and ends what is not answered in time. Idempotent.

        An answer that is already on its way is left to its server.
        """
        self._closed = True
        if self._under_way:
            await asyncio.wait(tuple(self._under_way), timeout=END_SECONDS)
        late = tuple(self._under_way)
        self._ended.update(late)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=END_SECONDS)
