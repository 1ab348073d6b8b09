"""Errors under /api and /chat in the protocol's form, whoever made them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from sessions_app.inference.errors import Draining, Unavailable, WebchatError

from .apps import installed
from .errors import PromptTooLong, http_status

RETRY_SECONDS = 5
PROBES = ("/healthz", "/readyz")
_GENERIC = {
    400: ("bad_request", "The request could not be read; check its form."),
    403: ("forbidden", "The request was refused; load a page for a fresh CSRF token, then retry."),
    404: ("not_found", "There is nothing at this address for you."),
    405: ("method_not_allowed", "This address does not take that method; see the Allow header."),
    413: ("prompt_too_long", "The request is too large; shorten it."),
    415: ("unsupported_media_type", "Send the body as application/json."),
}
_UNEXPECTED = ("server_error", "The server failed; the error is in its log. Try again later.")


class ProtocolErrorsMiddleware:
    """Turns refusals and Django's own error pages into `{"error", "code"}` for JSON callers.

    Whoever asked for a page gets one where what it is made of cannot be reached.
    """

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            with _place(request):
                response = await self._get_response(request)
        except (Draining, Unavailable) as going:
            return _refused(request, going)
        if response.status_code < 400 or not _speaks_json(request) or _is_json(response):
            return response
        code, sentence = _GENERIC.get(response.status_code, _UNEXPECTED)
        if response.status_code == 404 and request.path != "/chat" and "conv_id" in request.GET:
            code, sentence = "conversation_not_found", "There is no such conversation."
        answer = error_response(response.status_code, code, sentence)
        if "Allow" in response:
            answer["Allow"] = response["Allow"]
        return answer

    async def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponse | None:
        if isinstance(exception, RequestDataTooBig) and _speaks_json(request):
            exception = PromptTooLong("The request is too large; shorten it.")
        told = WebchatError if _speaks_json(request) else (Unavailable, Draining)
        return _refused(request, exception) if isinstance(exception, told) else None


def _place(request: HttpRequest) -> AbstractContextManager[None]:
    """Among the requests that a process which goes does not wait for; probes ask until its end."""
    hub = installed()
    return nullcontext() if hub is None or request.path in PROBES else hub.requests.answering()


def _refused(request: HttpRequest, error: WebchatError) -> HttpResponse:
    if not _speaks_json(request):
        return _unavailable_page(request, error)
    status = http_status(error)
    response = error_response(status, error.code, str(error))
    if status in (429, 503):
        response["Retry-After"] = str(getattr(error, "retry_after", RETRY_SECONDS))
    return response


def _unavailable_page(request: HttpRequest, error: WebchatError) -> HttpResponse:
    response = render(request, "503.html", {"sentence": str(error)}, status=503)
    response["Retry-After"] = str(RETRY_SECONDS)
    response["Cache-Control"] = "no-store"
    return response


def error_response(status: int, code: str, sentence: str) -> HttpResponse:
    """An error in the form of PROTOCOL §5."""
    body = json.dumps({"error": sentence, "code": code})
    response = HttpResponse(body, status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response


def _speaks_json(request: HttpRequest) -> bool:
    path = request.path
    return path.startswith(("/api/", "/chat/")) or path in ("/api", "/chat")


def _is_json(response: HttpResponseBase) -> bool:
    return response.get("Content-Type", "").startswith("application/json")
