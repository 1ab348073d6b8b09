"""The websocket's gate on real sockets: whose page may open one. The table is in tests/chat."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.client import Visitor, visitor
from tests.live import live_server


async def status(visitor: Visitor, conv: str, *origins: str, **headers: str) -> int:
    """The status a handshake with these headers is answered with."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    try:
        async with connect(
            visitor.socket_url(conv_id=conv),
            additional_headers=[
                *visitor.headers().items(),
                *(("Origin", origin) for origin in origins),
                *named,
            ],
            compression=None,
            proxy=None,
        ):
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code


async def test_the_servers_own_origin_opens_a_socket(anna: Visitor, conv: str):
    assert await status(anna, conv, anna.url) == 101
    assert await status(anna, conv, anna.url.replace("http", "HTTP")) == 101


@pytest.mark.parametrize(
    "change",
    [
        lambda url: [],
        lambda url: ["http://evil.example"],
        lambda url: [url.replace("http", "https")],
        lambda url: [url[:-1] if len(url) > 20 else f"{url}1"],
        lambda url: [url.replace("127.0.0.1", "localhost")],
        lambda url: [url.replace("127.0.0.1", "a.127.0.0.1")],
        lambda url: [url.replace("//", "//user:pw@")],
    ],
    ids=["missing", "another site", "scheme", "port", "host", "subdomain", "userinfo"],
)
async def test_another_origin_is_refused_with_403(anna: Visitor, conv: str, change):
    assert await status(anna, conv, *change(anna.url)) == 403
    assert await anna.get("/api/conversations") == []


@pytest.mark.parametrize(
    "change",
    [
        lambda url: [url, url],
        lambda url: [url, "http://evil.example"],
        lambda url: ["null"],
        lambda url: ["https://[::1"],
        lambda url: [f"{url}/page"],
        lambda url: ["chrome-extension://abc"],
    ],
    ids=["twice", "two", "null", "unreadable", "path", "extension"],
)
async def test_an_origin_that_is_none_is_refused(anna: Visitor, conv: str, change):
    # Daphne's websocket library answers some of them itself, with 400.
    assert await status(anna, conv, *change(anna.url)) in (400, 403)


async def test_another_host_is_refused(anna: Visitor, conv: str):
    """A page on a name that was pointed here, as DNS rebinding does."""
    async with visitor(anna.url) as somebody:
        url = somebody.socket_url(conv_id=conv)
        with pytest.raises(InvalidStatus, match=r"40[03]"):
            async with connect(
                url.replace("127.0.0.1", "rebound.example"),
                host="127.0.0.1",
                port=int(anna.url.rpartition(":")[2]),
                additional_headers=somebody.headers(),
                origin=anna.url.replace("127.0.0.1", "rebound.example"),  # type: ignore[arg-type] # NewType of str
                proxy=None,
            ):
                pass


async def test_a_forwarded_protocol_that_nobody_trusts_changes_nothing(anna: Visitor, conv: str):
    secure = anna.url.replace("http", "https")

    assert await status(anna, conv, secure, X_Forwarded_Proto="https") == 403
    assert await status(anna, conv, anna.url, X_Forwarded_Proto="https") == 101


async def test_a_trusted_proxys_protocol_and_origins_count(conv: str):
    env = {
        "TRUST_X_FORWARDED_PROTO": "1",
        "CSRF_TRUSTED_ORIGINS": "https://chat.example.com,https://*.apps.example.com:8443",
    }
    async with live_server("daphne", env=env) as server, visitor(server.url) as somebody:
        secure = server.url.replace("http", "https")
        assert await status(somebody, conv, secure, X_Forwarded_Proto="https") == 101
        assert await status(somebody, conv, server.url, X_Forwarded_Proto="https") == 403
        assert await status(somebody, conv, server.url, X_Forwarded_Proto="http") == 101
        assert await status(somebody, conv, "https://chat.example.com") == 101
        assert await status(somebody, conv, "https://one.apps.example.com:8443") == 101
        assert await status(somebody, conv, "https://one.apps.example.com") == 403
        assert await status(somebody, conv, "http://chat.example.com") == 403

        page = await somebody.http.get("/", headers={"X-Forwarded-Proto": "https"})
        assert page.status_code == 200
        token = {"X-CSRFToken": somebody.http.cookies["csrftoken"]}
        answer = await somebody.http.post(
            "/api/chat/profile",
            json={"slug": "agent"},
            headers={"X-Forwarded-Proto": "https", "Origin": secure, **token},
        )
        assert answer.status_code == 200, answer.text
        assert "Secure" in answer.headers["set-cookie"].split("; ")
