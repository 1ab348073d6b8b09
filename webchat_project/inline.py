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
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware as XFrameOptions
from django.middleware.common import CommonMiddleware as Common
from django.middleware.csrf import CsrfViewMiddleware as Csrf
from django.middleware.security import SecurityMiddleware as Security
from django.template.response import TemplateResponse

STANDS_FOR = {
    f"webchat_project.inline.{django.__name__}": f"{django.__module__}.{django.__name__}"
    for django in (Security, XFrameOptions, Sessions, Csrf)
}
"""The names under which Django's checks look for its own."""


def begin_without_a_thread() -> None:
    """Has a request begin on the event loop. Idempotent.

    What Django does first is about the connections of the thread that it does it in. Under ASGI
    that thread is a new one for each request, and has none.
    """
    for receiver in (reset_queries, close_old_connections):
        request_started.disconnect(receiver)


class Inline:
    """In front of a middleware of Django's form: its hooks run on the event loop."""

    get_response: Any

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        hooks: Any = self
        response: HttpResponseBase | None = None
        if hasattr(hooks, "process_request"):
            if self.reads(request):
                response = await sync_to_async(hooks.process_request)(request)
            else:
                response = hooks.process_request(request)
        if response is None:
            response = await self.get_response(request)
        if not hasattr(hooks, "process_response"):
            return response
        if self.stores(request):
            return await sync_to_async(hooks.process_response)(request, response)  # type: ignore[no-any-return]
        return hooks.process_response(request, response)  # type: ignore[no-any-return]

    def reads(self, request: HttpRequest) -> bool:
        """Whether the way in may read from a store."""
        return False

    def stores(self, request: HttpRequest) -> bool:
        """Whether the way out may write to a store."""
        return False


class SecurityMiddleware(Inline, Security):
    """Headers, and the way to https."""


class XFrameOptionsMiddleware(Inline, XFrameOptions):
    """A header."""


class SessionMiddleware(Inline, Sessions):
    """A session is only named on the way in; it is read by who asks for it."""

    def stores(self, request: HttpRequest) -> bool:
        return request.session.modified or settings.SESSION_SAVE_EVERY_REQUEST


class CommonMiddleware(Inline, Common):
    """Addresses and headers."""


class CsrfViewMiddleware(Inline, Csrf):
    """Compares tokens. They are in cookies, unless CSRF_USE_SESSIONS says otherwise."""

    def reads(self, request: HttpRequest) -> bool:
        return settings.CSRF_USE_SESSIONS

    stores = reads

    async def process_view(self, request: HttpRequest, *view: Any) -> Any:  # type: ignore[override] # Django takes both kinds
        if self.reads(request):
            return await sync_to_async(super().process_view)(request, *view)
        return super().process_view(request, *view)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page of a refusal. It is rendered later, in a thread: it says who is signed in."""
    return TemplateResponse(request, "403_csrf.html", status=403)


class AuthenticationMiddleware(Inline, Authentication):
    """Who it is, is read by who asks for it."""


class MessageMiddleware(Inline, Messages):
    """A storage is made on the way in, and is used where a page shows or adds messages."""

    def stores(self, request: HttpRequest) -> bool:
        storage: Any = getattr(request, "_messages", None)
        return storage is not None and (storage.used or storage.added_new)
