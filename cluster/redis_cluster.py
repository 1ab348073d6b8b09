"""A Redis Cluster as one client: each command goes to the node that has the slot of its key.

The rules are those of redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec: 16 384
slots, `{a tag}` in a key names its slot, and a node that is asked for another's slot says whose it
is. redis-py has such a client too. It does not wait for a free connection, asks again on its own
after a time-out, and its pipelines wait for every node that they touch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)

from .urls import Place, places_in, several_in

T = TypeVar("T")
FORM = "redis+cluster://[[user]:password@]host:6379[,host:6379…]"
PORT = 6379
ASK_SECONDS = 1.0
"""A node has the table of slots at hand: each is given so long, and then the next one is asked."""
REDIRECTS = 16
AGAIN_SECONDS = 0.05
"""While a slot moves, its keys are partly here and partly there: for a few milliseconds each."""

_WITHOUT_KEY = ("CLUSTER INFO", "CLUSTER SLOTS", "INFO", "PING", "SCRIPT LOAD")


class Nodes(NamedTuple):
    """Where a cluster is asked for the rest of it, and redis-py's options for each connection."""

    places: Sequence[Place]
    options: Mapping[str, Any]
    tls: bool


def nodes_in(url: str) -> Nodes | None:
    """What a URL of the form `FORM` says; None where it names no cluster. Raises ValueError."""
    named = several_in(url, "cluster")
    if named is None:
        return None
    if named.path not in ("", "0"):
        raise ValueError(f"a cluster has no database {named.path!r}; expected {FORM}")
    options = named.options()
    if "ssl" in options:
        raise ValueError("it has the option 'ssl'; expected rediss+cluster:// for TLS")
    places = places_in(named.places, of="a node", port=PORT, form=FORM)
    return Nodes(places, options, named.tls)


class ClusterRedis(Redis):
    """Takes commands with one key, scripts whose keys have one slot, and a few without a key.

    Each node has a pool of its own, made by `pool` from a connection's options: where one is away,
    what the others have is reached as before. Belongs to one event loop.
    """

    def __init__(self, nodes: Nodes, *, pool: Callable[..., BlockingConnectionPool]) -> None:
        self._seeds = nodes
        self._pool_of = pool
        self._clients: dict[Place, Redis] = {}
        self._slots: list[Place | None] = []
        self._speaker = nodes.places[0]
        """The node that said last which has which slots."""
        self._learning = asyncio.Lock()
        super().__init__(connection_pool=self._pool(self._speaker))
        self._clients[self._speaker] = Redis.from_pool(self.connection_pool)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] not in _WITHOUT_KEY:

            async def command(node: Redis, asking: bool) -> Any:
                if not asking:
                    return await _asked(node, *args, **options)
                async with node.pipeline(transaction=False) as pipe:
                    pipe.execute_command("ASKING")
                    pipe.execute_command(*args, **options)
                    return (await pipe.execute())[1]

            return await self.reach(_key(args), command)
        await self.refresh()
        if args[0] == "PING":
            return True
        if args[0] == "SCRIPT LOAD":
            return await self._load(*args, **options)
        return await _asked(self.at(self._speaker), *args, **options)

    async def reach(self, key: str | bytes, ask: Callable[[Redis, bool], Awaitable[T]]) -> T:
        """What `ask` gets of the node that has the key, which it is given.

        Asked again, for nothing was done, where that node sends it to another, which may want to
        hear ASKING first: then its second argument is true. Raises what `ask` does, and RedisError.
        """
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        place, asking = await self._place(slot), False
        for _ in range(REDIRECTS):
            try:
                return await ask(self.at(place), asking)
            except MovedError as error:
                place, asking = (error.host or place[0], error.port), False
                self._slots[slot] = place
            except AskError as error:
                place, asking = (error.host or place[0], error.port), True
            except TryAgainError:
                await asyncio.sleep(AGAIN_SECONDS)
                place, asking = await self._place(slot), False
        raise TryAgainError(f"slot {slot} is still on its way to another node")

    async def refresh(self) -> None:
        """Learns which node has which slots. Raises RedisError where none says that all is well."""
        async with self._learning:
            await self._learn()

    def at(self, place: Place) -> Redis:
        """The client of one node."""
        client = self._clients.get(place)
        if client is None:
            client = self._clients[place] = Redis.from_pool(self._pool(place))
        return client

    def pipeline(self, *args: Any, **options: Any) -> NoReturn:
        raise NotImplementedError("a pipeline is of one node: expected together()")

    async def aclose(self, *args: Any, **options: Any) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))
        await super().aclose(*args, **options)

    def _pool(self, place: Place) -> BlockingConnectionPool:
        host, port = place
        return self._pool_of(
            connection_class=SSLConnection if self._seeds.tls else Connection,
            **self._seeds.options,
            host=host,
            port=port,
        )

    async def _place(self, slot: int) -> Place:
        if not self._slots:
            async with self._learning:
                if not self._slots:
                    await self._learn()
        place = self._slots[slot]
        if place is None:
            raise ClusterDownError(f"no node has slot {slot}")
        return place

    async def _learn(self) -> None:
        why: Exception | None = None
        for place in dict.fromkeys((self._speaker, *self._clients, *self._seeds.places)):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    self._slots = await self._told_by(place)
            except (RedisError, OSError, TimeoutError) as error:
                why = error
            else:
                self._speaker = place
                return
        raise ClusterDownError(f"no node of the cluster says that it is well: {why}")

    async def _told_by(self, place: Place) -> list[Place | None]:
        """The place of each slot. Raises RedisError; OSError."""
        node = self.at(place)
        info = await _asked(node, "CLUSTER INFO")
        if info["cluster_state"] != "ok":
            raise ClusterDownError(
                f"{place[0]}:{place[1]} says cluster_state {info['cluster_state']}"
            )
        slots: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary, *_ in await _asked(node, "CLUSTER SLOTS"):
            host = primary[0].decode() if primary[0] else place[0]
            slots[first : last + 1] = [(host, primary[1])] * (last + 1 - first)
        return slots

    async def _load(self, *args: Any, **options: Any) -> Any:
        """A script, at every node that has slots."""
        nodes = [self.at(place) for place in set(self._slots) if place]
        answers = await asyncio.gather(*(_asked(node, *args, **options) for node in nodes))
        return answers[0]


class AnyNode(Connection):
    """A connection to one of several nodes: what is published at one of them, each of them hears.

    Where it breaks the next one is tried.
    """

    def __init__(self, *, places: Sequence[Place], **options: Any) -> None:
        super().__init__(**options)
        self._places = deque(places)

    async def _connect(self) -> None:
        for left in reversed(range(len(self._places))):
            self.host, self.port = self._places[0]
            self._places.rotate(-1)
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except (OSError, TimeoutError):
                if not left:
                    raise
            else:
                break


class AnySSLNode(AnyNode, SSLConnection):
    pass


async def _asked(node: Redis, *command: Any, **options: Any) -> Any:
    return await node.execute_command(*command, **options)  # type: ignore[no-untyped-call]


def _key(args: Sequence[Any]) -> str | bytes:
    """The first key of a command."""
    match args[0]:
        case "EVALSHA":
            key: str | bytes = args[3]
        case "XREAD":
            key = args[args.index(b"STREAMS") + 1]
        case _:
            key = args[1]
    return key
