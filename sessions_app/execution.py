"""ExecutionHandle: one running inference, to be cancelled and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .inference.runner import Cancellation
from .inference.turns import Outcome, Turn


class ExecutionHandle:
    """Owns the task of one inference. Made inside a running event loop.

    `ended` is called when the task has, also when it never took a step.
    """

    def __init__(
        self,
        execute: Callable[[Cancellation], Awaitable[Turn]],
        *,
        ended: Callable[[], None] = lambda: None,
        inference_id: str,
        turn_id: str,
    ) -> None:
        self.inference_id = inference_id
        self.turn_id = turn_id
        self._cancellation = Cancellation()
        self._task: asyncio.Task[Turn] = asyncio.ensure_future(execute(self._cancellation))
        self._task.set_name(f"inference:{inference_id}")
        self._task.add_done_callback(lambda _: ended())

    @property
    def is_running(self) -> bool:
        return not self._task.done()

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        if not self._task.done() or self._task.cancelled() or self._task.exception():
            return None
        return self._task.result().metadata.outcome

    def cancel(self, reason: str | None = None) -> bool:
        """Asks for the end and returns at once; may be called again.

        True: it ends as cancelled. False: its end is already being written; `wait()` tells which.
        """
        return self._cancellation.request(reason)

    async def wait(self) -> Turn:
        """The final turn, once its end is in the log. Any number may wait, and give up waiting."""
        return await asyncio.shield(self._task)
