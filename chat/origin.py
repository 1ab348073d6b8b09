"""The gate of the websocket: who may open one, by the Origin the browser names."""

from __future__ import annotations

import logging
import re
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest

logger = logging.getLogger(__name__)

_DEFAULT_PORT = {"http": 80, "https": 443}
_BARE = re.compile(r"https?://[^/?#@\\\s]+", re.IGNORECASE)


class OriginValidator:
    """Lets a handshake pass whose Origin is the request's own, or one of CSRF_TRUSTED_ORIGINS.

    Scheme, host and port are compared exactly. A missing, doubled, `null` or unreadable Origin is
    refused with 403. The request's own origin is what Django makes of it: ALLOWED_HOSTS,
    SECURE_PROXY_SSL_HEADER and USE_X_FORWARDED_HOST count here as they do for pages.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if is_same_origin(scope):
            await self._application(scope, receive, send)
        else:
            named = [value[:100] for name, value in scope["headers"] if name == b"origin"]
            logger.info("a socket was refused: its Origin is not one of ours: %s", named)
            await refuse(receive, send)


async def refuse(receive: Any, send: Any) -> None:
    """Answers a websocket handshake with 403: the only refusal every ASGI server can give."""
    await receive()
    await send({"type": "websocket.close", "code": 4503})


def is_same_origin(scope: dict[str, Any]) -> bool:
    """Whether a websocket scope's Origin may open a socket here."""
    named = [value for name, value in scope["headers"] if name == b"origin"]
    if len(named) != 1:
        return False
    origin = _parse(named[0].decode("latin-1"))
    if origin is None:
        return False
    return origin == _own(scope) or any(
        _matches(origin, trusted) for trusted in settings.CSRF_TRUSTED_ORIGINS
    )


def _own(scope: dict[str, Any]) -> tuple[str, str, int] | None:
    scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "ws"), "http")
    request = ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())
    try:
        return _parse(f"{request.scheme}://{request.get_host()}")
    except DisallowedHost:
        return None


def _parse(text: str) -> tuple[str, str, int] | None:
    """`(scheme, host, port)` of a bare origin; None for anything else."""
    if not _BARE.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if not parts.hostname:
        return None
    return scheme, parts.hostname.lower(), _DEFAULT_PORT[scheme] if port is None else port


def _matches(origin: tuple[str, str, int], trusted: str) -> bool:
    """Django's form: `https://example.com` or `https://*.example.com`."""
    if "://*." not in trusted:
        return _parse(trusted) == origin
    pattern = _parse(trusted.replace("://*.", "://", 1))
    if pattern is None:
        return False
    scheme, host, port = pattern
    return (scheme, port) == (origin[0], origin[2]) and origin[1].endswith(f".{host}")
