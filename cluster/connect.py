"""How this process speaks to Redis: whoever has to wait for it is told soon that it is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as Unconnected

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

    Connects when it is first asked. Raises ValueError for what is no URL of a Redis.
    """
    pool = BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, timeout=WAIT_SECONDS, **OPTIONS
    )
    return Redis.from_pool(pool)
