"""What a URL of a Redis under Sentinel says, and to whom."""

from __future__ import annotations

import pytest

from cluster.connect import connect, layer_host
from cluster.sentinel import ASKING, service_in


def test_each_part_of_the_url_goes_to_whom_it_is_for():
    service = service_in(
        "rediss+sentinel://webchat:a%40b@one,[::1]:26380,two:7/a-service/2"
        "?sentinel_username=asker&sentinel_password=c%26d&ssl_ca_certs=/our.pem&socket_timeout=7"
    )
    assert service is not None
    assert service.name == "a-service"
    assert service.sentinels == (("one", 26379), ("::1", 26380), ("two", 7))
    tls = {"ssl": True, "ssl_ca_certs": "/our.pem"}
    account = {"username": "webchat", "password": "a@b"}
    assert service.options == {**account, **tls, "db": 2, "socket_timeout": 7.0}
    assert service.asking == {**ASKING, **tls, "username": "asker", "password": "c&d"}


def test_the_client_and_the_layer_are_told_the_same():
    url = "redis+sentinel://webchat:a-password@one,two/a-service"
    account = {"username": "webchat", "password": "a-password"}
    pool = connect(url).connection_pool
    assert pool.connection_kwargs.items() >= account.items()
    host = layer_host(url)
    assert host.items() >= {"master_name": "a-service", **account}.items()
    assert host["sentinels"] == (("one", 26379), ("two", 26379))


@pytest.mark.parametrize("url", ["redis://host", "rediss://host/0", "unix:///a", "sentinel://a/b"])
def test_a_url_that_names_a_redis_is_none_of_sentinels(url: str):
    assert service_in(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://host:26379", "no service"),
        ("redis+sentinel://host/?sentinel_password=a", "no service"),
        ("redis+sentinel://host/a-service/one", "'one' is no number"),
        ("redis+sentinel:///a-service", "'' is no address"),
        ("redis+sentinel://one,/a-service", "'' is no address"),
        ("redis+sentinel://one:two/a-service", "'one:two' is no address"),
        ("redis+sentinel://:a-password@one:70000/a-service", "^'one:70000' is no address"),
        ("redis+sentinel://::1/a-service", "'::1' is no address"),
        ("redis+sentinel://host/a-service?ssl=true", "rediss[+]sentinel://"),
        ("redis+sentinel://host/a-service?sentinel_port=1", "'sentinel_port'"),
        ("redis+sentinel://host/a-service?socket_timeout=long", "socket_timeout"),
    ],
)
def test_a_wrong_url_is_told_with_what_was_got_and_expected(url: str, words: str):
    with pytest.raises(ValueError, match=words) as told:
        service_in(url)
    assert "a-password" not in str(told.value)
    assert layer_host(url)["address"] == url
