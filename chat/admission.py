"""The second gate of the websocket: who is behind its cookies, read in one visit to a thread.

What a socket sends passes it untouched. The middlewares of Channels for sessions and accounts would
look at each frame.
"""

from __future__ import annotations

from typing import Any

from channels.sessions import CookieMiddleware
from django.conf import settings

from sessions_app.access import Identity

from .apps import hub


class Admission:
    """Adds to a websocket's scope its `cookies`, its `session_key` and its `identity`.

    Who is known by no session is nobody; the application decides what that means.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._with_cookies = CookieMiddleware(self._admit)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._with_cookies(scope, receive, send)

    async def _admit(self, scope: Any, receive: Any, send: Any) -> None:
        session_key = scope["cookies"].get(settings.SESSION_COOKIE_NAME)
        scope["session_key"] = session_key
        scope["identity"] = (
            await hub().identities.behind(session_key) if session_key else Identity(None)
        )
        await self._application(scope, receive, send)
