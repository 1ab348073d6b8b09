"""System checks of the Redis that processes share: what it must be able to do, and should."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

logger = logging.getLogger(__name__)

OLDEST = (6, 2)
"""The first Redis that trims a stream by an id, and reads one after an id."""

ASK_SECONDS = 1.0
EXAMPLE = "redis://[[user]:password@]host:6379/0, or rediss:// for TLS"
OF_SENTINEL = (
    "Of Redises under Sentinel, name one address that follows the primary: a virtual one, or a "
    "proxy's; see docs/cluster.md."
)


@register
def check_redis(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """REDIS_URL leads to a Redis that keeps what it is given.

    One that is away is a warning only: a server starts without it, and waits.
    """
    url = settings.REDIS_URL
    if not url:
        return []
    try:
        Redis.from_url(url).close()
        client = Redis.from_url(
            url,
            socket_timeout=ASK_SECONDS,
            socket_connect_timeout=ASK_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError) as error:
        return [
            Error(
                f"REDIS_URL is no URL of a Redis: {error}",
                hint=f"Expected {EXAMPLE}; leave it out for one process alone. {OF_SENTINEL}",
                id="webchat_project.E003",
            )
        ]
    try:
        with client:
            return list(findings(client.info()))
    except (AuthenticationError, NoPermissionError) as error:
        return [
            Error(
                f"Redis refuses the account in REDIS_URL: {error}",
                hint="Correct its user and password. It needs all commands but administrative ones "
                "on the keys webchat:* and LIMITS:*, INFO, and all channels: +@all -@dangerous "
                "+info ~* &*.",
                id="webchat_project.E004",
            )
        ]
    except (RedisError, OSError) as error:
        return [
            Warning(
                f"Redis cannot be reached: {str(error) or type(error).__name__}",
                hint="Start it, or correct REDIS_URL. Until then requests are answered with 503.",
                id="webchat_project.W001",
            )
        ]


def findings(info: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """What is to be said of a Redis that answers INFO so."""
    version = str(info.get("redis_version", ""))
    if _number(version) < OLDEST:
        yield Error(
            f"Redis is of version {version or 'unknown'}.",
            hint="Use Redis 6.2 or later, or any Valkey.",
            id="webchat_project.E005",
        )
    if info.get("cluster_enabled"):
        yield Error(
            "REDIS_URL leads to a node of a Redis Cluster.",
            hint="Use a single Redis with a replica; see docs/cluster.md.",
            id="webchat_project.E006",
        )
    if "sentinel_masters" in info:
        yield Error(
            "REDIS_URL leads to a Sentinel, which keeps nothing.",
            hint=OF_SENTINEL,
            id="webchat_project.E007",
        )
        return
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys"):
        yield Warning(
            f"Redis evicts whatever it likes when its memory is full: maxmemory-policy {policy}.",
            hint="Set maxmemory-policy to noeviction: then prompts are refused, and no "
            "conversation is lost. With volatile-ttl those that would expire first are lost first.",
            id="webchat_project.W002",
        )
    if "aof_enabled" in info and not info["aof_enabled"]:
        yield Warning(
            "Redis writes no append-only file: its restart loses conversations, or goes back.",
            hint="Set appendonly yes, with appendfsync everysec. Where that is meant, silence this "
            "with SILENCED_SYSTEM_CHECKS.",
            id="webchat_project.W003",
        )


def tell_findings(info: Mapping[str, Any]) -> None:
    """Says in the log what a check would say, when Redis was reached after the start or again."""
    for finding in findings(info):
        if not finding.is_silenced():
            logger.warning("%s %s (%s)", finding.msg, finding.hint, finding.id)


def _number(version: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return OLDEST  # a kin of Redis that counts in its own way
