"""Django's middlewares without their detour through a thread.

Under ASGI Django sends each hook of a synchronous middleware to a thread, and the first frame of a
prompt waits for all of them. The hooks of these only compute, so they run where they are; what
would read or write a store still goes to a thread.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware as Authentication
from django.contrib.messages.middleware import MessageMiddleware as Messages
from django.contrib.sessions.middleware import SessionMiddleware as Sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware as Common


class Inline:
    """In front of a middleware of Django's form: its hooks run on the event loop."""

    get_response: Any

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        hooks: Any = self
        response: HttpResponseBase | None = None
        if hasattr(hooks, "process_request"):
            response = hooks.process_request(request)
        if response is None:
            response = await self.get_response(request)
        if not hasattr(hooks, "process_response"):
            return response
        if self.stores(request):
            return await sync_to_async(hooks.process_response)(request, response)  # type: ignore[no-any-return]
        return hooks.process_response(request, response)  # type: ignore[no-any-return]

    def stores(self, request: HttpRequest) -> bool:
        """Whether the way out may write to a store."""
        return False


class SessionMiddleware(Inline, Sessions):
    """A session is only named on the way in; it is read by who asks for it."""

    def stores(self, request: HttpRequest) -> bool:
        return request.session.modified or settings.SESSION_SAVE_EVERY_REQUEST


class CommonMiddleware(Inline, Common):
    """Addresses and headers."""


class AuthenticationMiddleware(Inline, Authentication):
    """Who it is, is read by who asks for it."""


class MessageMiddleware(Inline, Messages):
    """A storage is made on the way in, and is used where a page shows or adds messages."""

    def stores(self, request: HttpRequest) -> bool:
        storage: Any = getattr(request, "_messages", None)
        return storage is not None and (storage.used or storage.added_new)
