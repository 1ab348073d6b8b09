"""Proves webchat_project/redis_checks.py: a Redis that will not do is told of at start."""

from __future__ import annotations

import logging

import pytest
from django.core.checks import run_checks
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.ports import free_port
from webchat_project.cluster import Told
from webchat_project.redis_checks import findings

GOOD = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1}


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:6379",
        "http://127.0.0.1:6379",
        "redis://host:port/0",
        "redis://host:6379/0?colour=red",
        "sentinel://a/b",
        "redis+sentinel://host:26379",
    ],
)
def test_what_is_no_url_of_a_redis_is_an_error(settings, url: str):
    settings.REDIS_URL = url
    [error] = run_checks()
    assert (error.id, error.level) == ("webchat_project.E003", 40)
    assert "redis://" in str(error.hint)


def test_a_redis_that_is_away_is_a_warning_and_no_error(settings):
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    [warning] = run_checks()
    assert (warning.id, warning.level) == ("webchat_project.W001", 30)


@pytest.mark.parametrize(
    ("info", "ids"),
    [
        ({}, []),
        ({"redis_version": "6.0.16"}, ["E005"]),
        ({"redis_version": "6.2.0"}, []),
        ({"redis_version": "255.255.255"}, []),
        ({"cluster_enabled": 1}, ["E006"]),
        ({"sentinel_masters": 1, "aof_enabled": 0}, ["E007"]),
        ({"maxmemory_policy": "allkeys-lru"}, ["W002"]),
        ({"maxmemory_policy": "volatile-ttl"}, []),
        ({"aof_enabled": 0}, ["W003"]),
        ({"redis_version": "5.0", "aof_enabled": 0}, ["E005", "W003"]),
    ],
)
def test_what_redis_says_of_itself_is_judged(info: dict[str, object], ids: list[str]):
    found = [str(finding.id) for finding in findings({**GOOD, **info})]
    assert found == [f"webchat_project.{id}" for id in ids]


def record_of(error: Exception) -> logging.LogRecord:
    told = (type(error), error, None)
    return logging.LogRecord("layer", logging.ERROR, "layer.py", 1, "it failed", None, told)


def test_a_layer_that_trips_over_a_broken_line_says_nothing_of_its_own():
    tripped = AttributeError("'NoneType' object has no attribute 'writelines'")
    assert Told().filter(record_of(tripped))
    tripped.__context__ = RedisConnectionError("the line is broken")
    assert not Told().filter(record_of(tripped))
