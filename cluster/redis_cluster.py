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
    NoScriptError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)

from .tasks import end
from .urls import Place, places_in, several_in

T = TypeVar("T")
FORM = "redis+cluster://[[user]:password@]host:6379[,host:6379…]"
PORT = 6379
ASK_SECONDS = 0.5
"""A node has the table of slots at hand: each is given so long, and then the next one is asked."""
REDIRECTS = 16
AGAIN_SECONDS = 0.05
"""While a slot moves, its keys are partly here and partly there: for a few milliseconds each."""

LEAVES_SECONDS = 30.0
"""Longer than anybody waits for an answer."""


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
    options = named.options()
    if named.path not in ("", "0") or options.get("db"):
        raise ValueError(
            f"a cluster has no database {named.path or options['db']}; expected {FORM}"
        )
    if "ssl" in options:
        raise ValueError("it has the option 'ssl'; expected rediss+cluster:// for TLS")
    places = places_in(named.places, of="a node", port=PORT, form=FORM)
    return Nodes(places, options, named.tls)


class NodeGone(RedisError):
    """The node has no slots any more; it was not asked."""


class ClusterRedis(Redis):
    """Takes commands with one key, scripts whose keys have one slot, PING and INFO.

    Each node has a pool of its own, made by `pool` from a connection's options: where one is away,
    what the others have is reached as before. Belongs to one event loop.
    """

    def __init__(self, nodes: Nodes, *, pool: Callable[..., BlockingConnectionPool]) -> None:
        self._seeds = nodes
        self._pool_of = pool
        self._clients: dict[Place, Redis] = {}
        self._leaving: list[tuple[float, Redis]] = []
        """Nodes that are none any more, and since when: what they were asked may still come."""
        self._slots: list[Place | None] = []
        self._speaker = nodes.places[0]
        """The node that said last which has which slots."""
        self._learning: asyncio.Task[None] | None = None
        self._scripts: dict[str, Any] = {}
        self.on_gone: list[Callable[[Redis], None]] = []
        """Told of each node that has no slots any more."""
        super().__init__(connection_pool=self._pool(self._speaker))
        self._clients[self._speaker] = Redis.from_pool(self.connection_pool)

    def register_script(self, script: Any) -> Any:
        registered: Any = super().register_script(script)
        self._scripts[registered.sha] = script
        return registered

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in ("PING", "INFO"):
            await self.refresh()
            # Whoever said how the cluster is has answered.
            return args[0] == "PING" or await _asked(self._at(self._speaker), *args, **options)

        async def command(node: Redis, asking: bool) -> Any:
            if not asking:
                return await _asked(node, *args, **options)
            async with node.pipeline(transaction=False) as pipe:
                pipe.execute_command("ASKING")
                pipe.execute_command(*args, **options)
                return (await pipe.execute())[1]

        async def known_command(node: Redis, asking: bool) -> Any:
            try:
                return await command(node, asking)
            except NoScriptError:
                await node.script_load(self._scripts[args[1]])
                return await command(node, asking)

        return await self.reach(_key(args), known_command)

    async def reach(self, key: str | bytes, ask: Callable[[Redis, bool], Awaitable[T]]) -> T:
        """What `ask` gets of the node that has the key, which it is given.

        Asked again, for nothing was done, where that node sends it to another, which may want to
        hear ASKING first: then its second argument is true. Raises what `ask` does, and RedisError.
        """
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        place, asking = await self._place(slot), False
        for _ in range(REDIRECTS):
            try:
                return await ask(self._at(place), asking)
            except MovedError as error:
                place, asking = (error.host or place[0], error.port), False
                self._slots[slot] = place
            except AskError as error:
                place, asking = (error.host or place[0], error.port), True
            except TryAgainError:
                await asyncio.sleep(AGAIN_SECONDS)
                place, asking = await self._place(slot), False
            except NodeGone:
                place, asking = await self._place(slot), False
        raise TryAgainError(f"slot {slot} is still on its way to another node")

    async def refresh(self) -> None:
        """Learns which node has which slots. Raises RedisError where none says that all is well.

        Who comes while it is asked has the same answer.
        """
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn(), name="cluster-slots")
            self._learning.add_done_callback(_heard)
        await asyncio.shield(self._learning)

    def pipeline(self, *args: Any, **options: Any) -> NoReturn:
        raise RedisClusterException("a pipeline is of one node: expected together()")

    async def aclose(self, *args: Any, **options: Any) -> None:
        if self._learning is not None:
            await end(self._learning)
        clients = [*self._clients.values(), *(client for _, client in self._leaving)]
        await asyncio.gather(*(client.aclose() for client in clients))
        await super().aclose(*args, **options)

    def _at(self, place: Place) -> Redis:
        client = self._clients.get(place)
        if client is None:
            client = self._clients[place] = Redis.from_pool(self._pool(place))
        return client

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
            await self.refresh()
        place = self._slots[slot]
        if place is None:
            raise ClusterDownError(f"no node has slot {slot}")
        return place

    async def _learn(self) -> None:
        why: Exception | None = None
        for place in dict.fromkeys((self._speaker, *self._seeds.places, *self._clients)):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    self._slots = await self._told_by(place)
            except (RedisError, OSError, TimeoutError) as error:
                why = error
            else:
                self._speaker = place
                await self._forget_nodes()
                return
        raise ClusterDownError(f"no node of the cluster says that it is well: {why}")

    async def _told_by(self, place: Place) -> list[Place | None]:
        """The place of each slot. Raises RedisError; OSError."""
        node = self._at(place)
        info = await _asked(node, "CLUSTER INFO")
        if (state := info["cluster_state"]) != "ok":
            raise ClusterDownError(f"{place[0]}:{place[1]} says cluster_state {state}")
        slots: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary, *_ in await _asked(node, "CLUSTER SLOTS"):
            host = primary[0].decode() if primary[0] else place[0]
            slots[first : last + 1] = [(host, primary[1])] * (last + 1 - first)
        return slots

    async def _forget_nodes(self) -> None:
        """Those that have no slots any more."""
        now = asyncio.get_running_loop().time()
        known = {*self._slots, self._speaker}
        for place in [place for place in self._clients if place not in known]:
            client = self._clients.pop(place)
            self._leaving.append((now, client))
            for told in self.on_gone:
                told(client)
        while self._leaving and now - self._leaving[0][0] > LEAVES_SECONDS:
            await self._leaving.pop(0)[1].aclose()


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


def _heard(learning: asyncio.Task[None]) -> None:
    """Its error is of those who wait; there may be nobody left."""
    if not learning.cancelled():
        learning.exception()


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
