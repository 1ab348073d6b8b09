"""How this process speaks to Redis: whoever has to wait for it is told soon that it is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from redis import Redis as SyncRedis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry as SyncRetry
from redis.sentinel import Sentinel as SyncSentinel

from .redis_cluster import AnyNode, AnySSLNode, ClusterRedis, Nodes, nodes_in
from .sentinel import (
    ListeningConnection,
    ListeningSSLConnection,
    PrimaryPool,
    Service,
    service_in,
)

ANSWER_SECONDS = 3.0
CONNECT_SECONDS = 2.0
CONNECTIONS = 64
WAIT_SECONDS = 5.0

OPTIONS: Mapping[str, Any] = {
    "socket_timeout": ANSWER_SECONDS,
    "socket_connect_timeout": CONNECT_SECONDS,
    "health_check_interval": 15,
    # A line that was cut is mended at once; who did not answer is not asked again by itself.
    "retry": Retry(
        ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=2, supported_errors=(Unconnected,)
    ),
}
"""What redis-py is told beside the URL, for every connection of a process."""


def connect(url: str) -> Redis:
    """A client that never has more than `CONNECTIONS` open; who comes later waits for one.

    Connects when it is first asked. Where Sentinels watch the Redis, it follows the primary; to a
    Redis Cluster it has so many for each node. Raises ValueError for what is no URL of a Redis.
    """
    bounds: dict[str, Any] = {"max_connections": CONNECTIONS, "timeout": WAIT_SECONDS, **OPTIONS}
    nodes = nodes_in(url)
    if nodes is not None:
        return ClusterRedis(nodes, pool=partial(BlockingConnectionPool, **bounds))
    service = service_in(url)
    if service is None:
        return Redis.from_pool(BlockingConnectionPool.from_url(url, **bounds))
    return Redis.from_pool(PrimaryPool(service, **bounds))


def layer_host(url: str) -> dict[str, Any]:
    """The same Redis, as channels_redis is told of it. Of a wrong URL it will complain itself."""
    try:
        service, nodes = service_in(url), nodes_in(url)
    except ValueError:
        service = nodes = None
    if nodes is not None:
        return {
            **OPTIONS,
            **nodes.options,
            "places": nodes.places,
            "connection_class": AnySSLNode if nodes.tls else AnyNode,
        }
    if service is None:
        return {**OPTIONS, "address": url}
    return {
        **OPTIONS,
        **service.options,
        "master_name": service.name,
        "sentinels": service.sentinels,
        "sentinel_kwargs": service.asking,
        "connection_class": ListeningSSLConnection
        if service.options.get("ssl")
        else ListeningConnection,
    }


def connect_once(url: str, *, seconds: float) -> SyncRedis:
    """A client for one question, which has its answer or its error within so long of each step.

    Connects when it is asked. Raises ValueError or TypeError for what is no URL of a Redis.
    """
    once = _once(seconds)
    service, nodes = service_in(url), nodes_in(url)
    if nodes is not None:
        client = _first_that_answers(nodes, once)
    elif service is None:
        client = SyncRedis.from_url(url, **once)
    else:
        sentinel = SyncSentinel(service.sentinels, sentinel_kwargs={**service.asking, **once})  # type: ignore[no-untyped-call]
        client = sentinel.master_for(service.name, **{**once, **service.options})  # type: ignore[no-untyped-call]
    client.connection_pool.make_connection()  # what redis-py does not know it finds only now
    return client


def _first_that_answers(nodes: Nodes, once: Mapping[str, Any]) -> SyncRedis:
    """The client of one node; where none answers, of one that does not."""
    options = {**once, **nodes.options, **({"ssl": True} if nodes.tls else {})}
    clients = [SyncRedis(host=host, port=port, **options) for host, port in nodes.places]
    for client in clients:
        try:
            client.ping()
        except (AuthenticationError, ResponseError):  # the first is a ConnectionError to redis-py
            return client
        except (Unconnected, TimedOut, OSError):
            continue
        return client
    return clients[0]


def ask_sentinels(service: Service, *, seconds: float) -> Sequence[str] | None:
    """The services that the first Sentinel which answers watches; None where none answers.

    Raises RedisError where one refuses to say it.
    """
    for host, port in service.sentinels:
        options = {**service.asking, **_once(seconds)}
        try:
            with SyncRedis(host=host, port=port, **options) as sentinel:
                return sorted(sentinel.sentinel_masters())
        except AuthenticationError:  # a kind of ConnectionError to redis-py
            raise
        except (Unconnected, TimedOut, OSError):
            continue
    return None


def _once(seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": SyncRetry(NoBackoff(), 0),
    }
