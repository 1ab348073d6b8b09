"""Together: what several conversations ask of the store at once goes there in one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError


class _Asked(NamedTuple):
    script: AsyncScript
    parts: Sequence[Any]
    """The number of keys, the keys, the arguments."""
    answer: asyncio.Future[Any]


class Together:
    """Scripts that are asked for while others are on their way go together, at most `most` of them.

    Each is atomic by itself and has its own answer; nothing is promised about their order. A broken
    line is every one's error. Who is cancelled leaves the others alone, and what was not sent yet
    is not sent. Belongs to one event loop; its tasks end with what they were asked.
    """

    def __init__(self, client: Redis, *, most: int, trips: int) -> None:
        self._client = client
        self._most = most
        self._trips = trips
        """Round trips under way at most."""
        self._asked: deque[_Asked] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's answer. Raises RedisError or OSError."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(script, (len(keys), *keys, *args), answer))
        if self._under_way < self._trips:
            self._under_way += 1
            task = asyncio.create_task(self._travel(), name="store-trip")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _travel(self) -> None:
        try:
            while self._asked:
                await self._carry(self._take())
        except asyncio.CancelledError:
            # Nobody goes for the rest either: the process ends.
            for asked in self._asked:
                asked.answer.cancel()
            self._asked.clear()
            raise
        finally:
            # In the step that finds nothing left, so that what comes next is not left lying.
            self._under_way -= 1

    def _take(self) -> Sequence[_Asked]:
        taken: list[_Asked] = []
        while self._asked and len(taken) < self._most:
            asked = self._asked.popleft()
            if not asked.answer.done():
                taken.append(asked)
        return taken

    async def _carry(self, taken: Sequence[_Asked]) -> None:
        try:
            answers = await self._fetch(taken)
        except asyncio.CancelledError:
            for asked in taken:
                asked.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits is told
            answers = [error] * len(taken)
        for asked, answer in zip(taken, answers, strict=True):
            if asked.answer.done():
                continue
            if isinstance(answer, Exception):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)

    async def _fetch(self, taken: Sequence[_Asked]) -> Sequence[Any]:
        answers = await self._trip(taken)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # The store was started anew, or never had them; nothing of them was run.
            for source in {taken[n].script.script for n in unknown}:
                await self._client.script_load(source)
            again = await self._trip([taken[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return answers

    async def _trip(self, taken: Sequence[_Asked]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for asked in taken:
                pipe.execute_command("EVALSHA", asked.script.sha, *asked.parts)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers
