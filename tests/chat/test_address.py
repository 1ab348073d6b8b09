"""Proves chat/address.py: a client is known by what proxies of ours say, and by nothing else."""

from __future__ import annotations

import pytest

from chat.address import client_address

PEER = "10.0.0.7"


@pytest.mark.parametrize(
    ("forwarded", "proxies", "expected"),
    [
        ("", 0, PEER),
        ("203.0.113.9", 0, PEER),
        ("203.0.113.9", 1, "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9", 1, "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9, 10.0.0.8", 2, "203.0.113.9"),
        ("", 1, PEER),
        ("203.0.113.9", 2, PEER),
        ("nonsense", 1, "unknown"),
        ("2001:db8:1:2:3:4:5:6", 1, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", 1, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", 1, "203.0.113.9"),
    ],
)
def test_only_what_trusted_proxies_say_counts(forwarded: str, proxies: int, expected: str):
    assert client_address(PEER, forwarded, trusted_proxies=proxies) == expected


@pytest.mark.parametrize("peer", [None, "", "testclient"])
def test_who_comes_from_nowhere_is_unknown(peer: str | None):
    assert client_address(peer, "", trusted_proxies=0) == "unknown"


def test_a_link_local_peer_loses_its_interface():
    assert client_address("fe80::1%eth0", "", trusted_proxies=0) == "fe80::/64"
