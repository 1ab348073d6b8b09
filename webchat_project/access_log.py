"""One line in the log for each HTTP request, the same under every server."""

from __future__ import annotations

import logging
import time
from typing import Any

from chat.middleware import PROBES

logger = logging.getLogger("webchat.access")

QUIET = (*PROBES, "/metrics")
"""What machines ask every few seconds; told at DEBUG while it goes well."""


class AccessLog:
    """Wraps an ASGI application. Sockets are told of by their consumer, which knows more."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noting_the_status(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._application(scope, receive, noting_the_status)
        finally:
            is_probe = scope["path"] in QUIET and status == 200
            query = scope.get("query_string", b"").decode("latin-1")
            logger.log(
                logging.DEBUG if is_probe else logging.INFO,
                "%s %s",
                scope["method"],
                f"{scope['path']}?{query}" if query else scope["path"],
                extra={
                    "status": status or None,
                    "duration_ms": round((time.monotonic() - began) * 1000),
                    "client": (scope.get("client") or [None])[0],
                },
            )
