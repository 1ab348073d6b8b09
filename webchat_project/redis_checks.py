"""System checks of the Redis that processes share: what it must be able to do, and should."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from cluster.connect import ask_sentinels, connect_once
from cluster.redis_cluster import FORM as CLUSTER_FORM
from cluster.redis_cluster import nodes_in
from cluster.sentinel import FORM, service_in

logger = logging.getLogger(__name__)

OLDEST = (6, 2)
"""The first Redis that trims a stream by an id, and reads one after an id."""

ASK_SECONDS = 1.0
EXAMPLE = (
    "redis://[[user]:password@]host:6379/0; where Sentinels watch the Redis, "
    f"{FORM}; of a Redis Cluster, {CLUSTER_FORM}; with rediss instead of redis for TLS"
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
        client = connect_once(url, seconds=ASK_SECONDS)
    except (ValueError, TypeError) as error:
        return [
            Error(
                f"REDIS_URL is no URL of a Redis: {error}",
                hint=f"Expected {EXAMPLE}; leave it out for one process alone.",
                id="webchat_project.E003",
            )
        ]
    if wrong := list(_sentinel_findings(url)):
        return wrong
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


def _sentinel_findings(url: str) -> Iterator[CheckMessage]:
    """What the first Sentinel that answers has against the URL. Nothing where none answers."""
    service = service_in(url)
    if service is None:
        return
    try:
        known = ask_sentinels(service, seconds=ASK_SECONDS)
    except (AuthenticationError, NoPermissionError) as error:
        yield Error(
            f"A Sentinel refuses the account in REDIS_URL: {error}",
            hint="Say ?sentinel_username=…&sentinel_password=… as the Sentinels have them; what "
            "stands before the @ is for the Redis. The account needs PING and SENTINEL MASTERS.",
            id="webchat_project.E004",
        )
    except ResponseError as error:
        yield Error(
            f"REDIS_URL names as a Sentinel what is none: {error}",
            hint=f"Expected the Sentinels' addresses in {FORM}; of a Redis itself, redis://….",
            id="webchat_project.E008",
        )
    else:
        if known is not None and service.name not in known:
            yield Error(
                f"The Sentinels in REDIS_URL watch no {service.name!r}.",
                hint=f"They watch: {', '.join(known) or 'nothing'}. Expected {FORM}.",
                id="webchat_project.E008",
            )


def findings(info: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """What is to be said of a Redis that answers INFO so."""
    version = str(info.get("redis_version", ""))
    if _number(version) < OLDEST:
        yield Error(
            f"Redis is of version {version or 'unknown'}.",
            hint="Use Redis 6.2 or later, or any Valkey.",
            id="webchat_project.E005",
        )
    named = nodes_in(settings.REDIS_URL) is not None
    if named != bool(info.get("cluster_enabled")):
        yield Error(
            "REDIS_URL names as a Redis Cluster what is none."
            if named
            else "REDIS_URL leads to a node of a Redis Cluster, named as if it were a Redis.",
            hint=f"Name a Redis Cluster by some of its nodes, {CLUSTER_FORM}, and any other Redis "
            "as redis://….",
            id="webchat_project.E006",
        )
    if "sentinel_masters" in info:
        yield Error(
            "REDIS_URL leads to a Sentinel, which keeps nothing.",
            hint=f"Name it as one, with the service that it watches: {FORM}.",
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
