"""Proves chat/origin.py: which Origin may open a socket. On real sockets: tests/border."""

from __future__ import annotations

from typing import Any

import pytest

from chat.origin import is_same_origin

HOST = "127.0.0.1:8000"


def scope(*origins: str, host: str | None = HOST, scheme: str = "ws", **headers: str):
    """A handshake as a server gives it to the application."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if host is not None:
        named.append(("host", host))
    named += [("origin", origin) for origin in origins]
    made: dict[str, Any] = {
        "type": "websocket",
        "path": "/ws",
        "query_string": b"conv_id=x",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named],
        "server": ("127.0.0.1", 8000),
        "scheme": scheme,
    }
    return made


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8000", "HTTP://127.0.0.1:8000", "http://127.0.0.1:08000"]
)
def test_the_requests_own_origin_may_open_a_socket(origin: str):
    assert is_same_origin(scope(origin))


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("localhost", "ws", "http://localhost"),
        ("localhost", "ws", "http://localhost:80"),
        ("localhost:80", "ws", "http://localhost"),
        ("localhost", "ws", "http://LocalHost"),
        ("LOCALHOST", "ws", "http://localhost"),
        ("localhost", "wss", "https://localhost"),
        ("localhost", "wss", "https://localhost:443"),
        ("localhost:443", "wss", "https://localhost"),
        ("[::1]:8000", "ws", "http://[::1]:8000"),
    ],
)
def test_case_and_default_ports_make_no_difference(host: str, scheme: str, origin: str):
    assert is_same_origin(scope(origin, host=host, scheme=scheme))


@pytest.mark.parametrize(
    "origin",
    [
        *("https://127.0.0.1:8000", "ws://127.0.0.1:8000", "wss://127.0.0.1:8000"),
        *("http://127.0.0.1", "http://127.0.0.1:8001", "http://127.0.0.1:80000"),
        *("http://127.0.0.1:", "http://127.0.0.1:-8000", "http://127.0.0.1:8000a"),
        *(
            "http://localhost:8000",
            "http://evil.example:8000",
            "http://127.0.0.1.evil.example:8000",
        ),
        *("http://a.127.0.0.1:8000", "http://127.0.0.1:8000.evil.example", "http://evil127.0.0.1"),
        *("http://user@127.0.0.1:8000", "http://user:pw@127.0.0.1:8000", "http://@127.0.0.1:8000"),
        *("http://127.0.0.1:8000@evil.example", "http://evil.example#http://127.0.0.1:8000"),
        *("http://127.0.0.1:8000/", "http://127.0.0.1:8000/page", "http://127.0.0.1:8000?a=b"),
        *("http://127.0.0.1:8000#a", "http://127.0.0.1:8000?", "http://127.0.0.1:8000#"),
        *("http://127.0.0.1:8000 ", " http://127.0.0.1:8000", "http://127.0.0.1:\t8000"),
        *("http://127.0.0.1:8000, http://127.0.0.1:8000", "http://127.0.0.1:8000\\evil"),
        *("", "null", "NULL", "*", "http://", "https://[::1", "http://[::1", "//127.0.0.1:8000"),
        *("127.0.0.1:8000", "file://", "chrome-extension://abc", "http:127.0.0.1:8000", "ü"),
    ],
)
def test_every_other_origin_may_not(origin: str):
    assert not is_same_origin(scope(origin))


def test_none_and_two_origins_may_not():
    own = f"http://{HOST}"

    assert not is_same_origin(scope())
    assert not is_same_origin(scope(own, own))
    assert not is_same_origin(scope("http://evil.example", own))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "a b", None])
def test_a_host_that_is_not_allowed_has_no_origin_of_its_own(host: str | None):
    assert not is_same_origin(scope(f"http://{host}", host=host))


def test_another_host_of_the_deployment_counts_by_its_setting(settings):
    settings.ALLOWED_HOSTS = [".example.com"]

    assert is_same_origin(scope("http://chat.example.com", host="chat.example.com"))
    assert not is_same_origin(scope("http://other.example.com", host="chat.example.com"))


@pytest.mark.parametrize(
    ("origin", "trusted"),
    [
        ("https://chat.example.com", True),
        ("https://chat.example.com:443", True),
        ("https://CHAT.example.com", True),
        ("http://chat.example.com", False),
        ("https://chat.example.com:8443", False),
        ("https://sub.chat.example.com", False),
        ("https://one.apps.example.com:8443", True),
        ("https://a.b.apps.example.com:8443", True),
        ("https://one.apps.example.com", False),
        ("https://evilapps.example.com:8443", False),
        ("https://one.apps.example.com.evil:8443", False),
    ],
)
def test_trusted_origins_count_as_they_do_for_forms(settings, origin: str, trusted: bool):
    settings.CSRF_TRUSTED_ORIGINS = ["https://chat.example.com", "https://*.apps.example.com:8443"]

    assert is_same_origin(scope(origin)) is trusted


@pytest.mark.parametrize(
    ("trusts", "header", "origin", "same"),
    [
        (False, "https", "https://127.0.0.1:8000", False),
        (False, "https", "http://127.0.0.1:8000", True),
        (True, "https", "https://127.0.0.1:8000", True),
        (True, "https", "http://127.0.0.1:8000", False),
        (True, "http", "http://127.0.0.1:8000", True),
        (True, "http", "https://127.0.0.1:8000", False),
        (True, "HTTPS", "https://127.0.0.1:8000", False),
    ],
)
def test_a_forwarded_protocol_counts_only_where_it_is_trusted(
    settings, trusts: bool, header: str, origin: str, same: bool
):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if trusts else None

    assert is_same_origin(scope(origin, x_forwarded_proto=header)) is same


def test_a_server_that_names_no_scheme_speaks_plainly():
    """As Daphne does."""
    made = scope(f"http://{HOST}")
    del made["scheme"]

    assert is_same_origin(made)
