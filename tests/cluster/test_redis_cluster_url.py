"""What a URL of a Redis Cluster says."""

from __future__ import annotations

import pytest

from cluster.connect import connect, layer_host
from cluster.redis_cluster import nodes_in


def test_each_part_of_the_url_is_for_every_node():
    nodes = nodes_in("rediss+cluster://webchat:a%40b@one,[::1]:7,two/0?ssl_ca_certs=/our.pem")
    assert nodes is not None
    assert nodes.places == (("one", 6379), ("::1", 7), ("two", 6379))
    assert nodes.tls
    account = {"username": "webchat", "password": "a@b"}
    assert nodes.options == {**account, "ssl_ca_certs": "/our.pem"}


@pytest.mark.parametrize("url", ["redis://host", "rediss://host/0", "redis+sentinel://a/b"])
def test_a_url_that_names_another_redis_is_none_of_a_cluster(url: str):
    assert nodes_in(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+cluster://one,two/1", "no database 1"),
        ("redis+cluster://one,two?db=2", "no database 2"),
        ("redis+cluster://one,two?port=3", "the option 'port'"),
        ("redis+cluster://one?ssl=true", "rediss[+]cluster://"),
        ("redis+cluster://one:70000", "^'one:70000' is no address of a node"),
        ("redis+cluster://:a-password@one,", "'' is no address of a node"),
    ],
)
def test_a_wrong_url_is_told_with_what_was_got_and_expected(url: str, words: str):
    with pytest.raises(ValueError, match=words) as told:
        connect(url)
    assert "a-password" not in str(told.value)
    assert layer_host(url)["address"] == url
