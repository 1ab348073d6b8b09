"""Together: what several conversations ask of the store at once goes there in one round trip.

Of a Redis Cluster each node has trips of its own, so that one that is away holds up no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

from .redis_cluster import ClusterRedis, NodeGone

ASKED_AT_ONCE = 100


class Trips(Protocol):
    """What takes scripts and commands, and has an answer for each. Belongs to one event loop."""

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's answer; its keys have one slot. Raises RedisError or OSError."""

    async def ask_all(self, command: str, keys: Sequence[str], *args: Any) -> list[Any]:
        """The answers of a command for each key. Raises RedisError or OSError."""


def together(client: Redis, *, most: int, trips: int) -> Trips:
    """What carries at most `most` questions in a trip, with at most `trips` under way at once.

    Of a cluster: to each of its nodes.
    """
    if isinstance(client, ClusterRedis):
        return _ByNode(client, most=most, trips=trips)
    return _Together(client, most=most, trips=trips)


class _Asked(NamedTuple):
    command: Sequence[Any]
    source: Any
    """Of the script that it runs; empty where it is none."""
    asking: bool
    """Whether the node wants to hear ASKING before it."""
    answer: asyncio.Future[Any]


class _Together:
    """Trips to one Redis: what is asked for while others are on their way goes together.

    Each is atomic by itself and has its own answer; nothing is promised about their order. A broken
    line is every one's error. Who is cancelled leaves the others alone, and what was not sent yet
    is not sent. Its tasks end with what they were asked.
    """

    def __init__(self, client: Redis, *, most: int, trips: int) -> None:
        self._client = client
        self._most = most
        self._trips = trips
        self._asked: deque[_Asked] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self,
        script: AsyncScript,
        keys: Sequence[str],
        args: Sequence[Any],
        *,
        asking: bool = False,
    ) -> Any:
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        return await self._answer(command, script.script, asking)

    async def ask_all(self, command: str, keys: Sequence[str], *args: Any) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(keys), ASKED_AT_ONCE):
            async with self._client.pipeline(transaction=False) as pipe:
                for key in keys[start : start + ASKED_AT_ONCE]:
                    pipe.execute_command(command, key, *args)
                answers += await pipe.execute()
        return answers

    async def ask(self, command: str, key: str, *args: Any, asking: bool) -> Any:
        return await self._answer((command, key, *args), "", asking)

    def send_back(self) -> None:
        """What was not sent yet has NodeGone for its answer."""
        for asked in self._asked:
            if not asked.answer.done():
                asked.answer.set_exception(NodeGone("the node has no slots any more"))
        self._asked.clear()

    async def _answer(self, command: Sequence[Any], source: Any, asking: bool) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(command, source, asking, answer))
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
            for source in {taken[n].source for n in unknown}:
                await self._client.script_load(source)
            again = await self._trip([taken[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        return answers

    async def _trip(self, taken: Sequence[_Asked]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for asked in taken:
                if asked.asking:
                    pipe.execute_command("ASKING")
                pipe.execute_command(*asked.command)
            answers = iter(await pipe.execute(raise_on_error=False))
        found = []
        for asked in taken:
            if asked.asking:
                next(answers)
            found.append(next(answers))
        return found


class _ByNode:
    """Trips to the nodes of a cluster."""

    def __init__(self, client: ClusterRedis, *, most: int, trips: int) -> None:
        self._client = client
        self._most = most
        self._trips = trips
        self._nodes: dict[Redis, _Together] = {}
        client.on_gone.append(self._gone)

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self._client.reach(
            keys[0],
            lambda node, asking: self._to(node).run(script, keys, args, asking=asking),
        )

    async def ask_all(self, command: str, keys: Sequence[str], *args: Any) -> list[Any]:
        return await asyncio.gather(*(self._ask(command, key, *args) for key in keys))

    async def _ask(self, command: str, key: str, *args: Any) -> Any:
        return await self._client.reach(
            key,
            lambda node, asking: self._to(node).ask(command, key, *args, asking=asking),
        )

    def _gone(self, node: Redis) -> None:
        trips = self._nodes.pop(node, None)
        if trips is not None:
            trips.send_back()

    def _to(self, node: Redis) -> _Together:
        trips = self._nodes.get(node)
        if trips is None:
            trips = self._nodes[node] = _Together(node, most=self._most, trips=self._trips)
        return trips
