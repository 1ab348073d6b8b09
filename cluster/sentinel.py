"""A Redis that Sentinels watch: what its URL says, and connections that follow its primary."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import unquote

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import RedisError

from .urls import Place, places_in, several_in

FORM = "redis+sentinel://[[user]:password@]host:26379[,host:26379…]/service[/0]"
SENTINEL_PORT = 26379
ASKING: Mapping[str, Any] = {
    "socket_timeout": 1.0,
    "socket_connect_timeout": 1.0,
    "retry": Retry(NoBackoff(), 0),
}
"""A Sentinel has its answer at hand: each is asked once, and then the next one."""
LOOK_SECONDS = 3.0
"""A connection that listens looks this often whether it hears the primary."""


class PrimaryUnknown(RedisError):
    """No Sentinel that answers knows a primary now. Not worth asking at once again."""


class Service(NamedTuple):
    """A Redis by the name that its Sentinels have for it.

    `options` are redis-py's for connections to the Redis, `asking` those for its Sentinels.
    """

    name: str
    sentinels: Sequence[Place]
    options: Mapping[str, Any]
    asking: Mapping[str, Any]


def service_in(url: str) -> Service | None:
    """What a URL of the form `FORM` says; None where it names a Redis itself.

    Account, database and options are of the Redis, as redis-py takes them; `sentinel_username` and
    `sentinel_password` are of the Sentinels. With `rediss+sentinel` both speak TLS. Raises
    ValueError.
    """
    named = several_in(url, "sentinel")
    if named is None:
        return None
    name, _, db = named.path.partition("/")
    if not name:
        raise ValueError(f"it names no service that Sentinels watch; expected {FORM}")
    if db and not db.isdecimal():
        raise ValueError(f"{db!r} is no number of a database; expected {FORM}")
    options = named.options(db=db)
    asking = {
        name: value
        for name in ("username", "password")
        if (value := options.pop(f"sentinel_{name}", None)) is not None
    }
    if unknown := [name for name in options if name.startswith("sentinel_") or name == "ssl"]:
        raise ValueError(
            f"it has the option {unknown[0]!r}; expected of Sentinels sentinel_username and "
            "sentinel_password, and rediss+sentinel:// for TLS"
        )
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    ssl = {"ssl": True} if named.tls else {}
    return Service(
        unquote(name),
        places_in(named.places, of="a Sentinel", port=SENTINEL_PORT, form=FORM),
        {**options, **ssl},
        {**ASKING, **asking, **tls, **ssl},
    )


class PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits as a BlockingConnectionPool does; each new connection goes to whom Sentinels name.

    A connection that was busy while that changed does not go back to the old one.
    """

    def __init__(self, service: Service, **options: Any) -> None:
        sentinel = Sentinel(service.sentinels, sentinel_kwargs=service.asking)  # type: ignore[no-untyped-call]
        super().__init__(service.name, sentinel, **{**options, **service.options})  # type: ignore[no-untyped-call]

    async def get_master_address(self) -> tuple[str, int]:
        try:
            address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            # It is a ConnectionError, after which redis-py asks again: all of them, nine times.
            raise PrimaryUnknown(str(error)) from None
        return address

    async def release(self, connection: Any) -> None:
        if (connection.host, connection.port) != self.master_address:
            connection.mark_for_reconnect()
        await super().release(connection)

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class ListeningConnection(SentinelManagedConnection):
    """One that waits for what is published, for hours: it leaves a primary that is none any more.

    A machine that is gone says nothing, so listening to it goes on for as long as TCP hopes.
    """

    _look_at = 0.0

    async def read_response(self, *args: Any, **options: Any) -> Any:
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            with suppress(RedisError, OSError):
                await self.connection_pool.get_master_address()
            if (self.host, self.port) != self.connection_pool.master_address:
                await self.disconnect()
                raise Unconnected("the Sentinels name another primary")
        return await super().read_response(*args, **options)


class ListeningSSLConnection(ListeningConnection, SentinelManagedSSLConnection):
    pass


async def heed_sentinels(client: Redis) -> None:
    """Has the client leave a primary that is none any more. Raises nothing; may be called always.

    One that was only told to step back goes on taking writes for ten seconds, and forgets them.
    """
    pool = client.connection_pool
    if isinstance(pool, PrimaryPool):
        with suppress(RedisError, OSError):
            await pool.get_master_address()
