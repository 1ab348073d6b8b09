"""GET /metrics: where Prometheus reads all numbers of this process."""

from __future__ import annotations

from secrets import compare_digest

from django.contrib.auth.models import PermissionsMixin
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder

from .apps import hub

VIEW_METRICS = "sessions_app.view_metrics"


@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """GET /metrics: for whoever has WEBCHAT['METRICS_TOKEN'], and for staff with the permission.

    To anybody else, and where neither is configured, there is nothing at this address.
    """
    if not (_has_token(request) or await _may_read(request)):
        raise Http404("there is nothing at this address for you")
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    response = HttpResponse(encode(hub().metrics), content_type=content_type)
    response["Cache-Control"] = "no-store"
    return response


def _has_token(request: HttpRequest) -> bool:
    token = hub().settings.metrics_token
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return (
        token != ""
        and scheme.lower() == "bearer"
        and compare_digest(given.strip().encode(), token.encode())
    )


async def _may_read(request: HttpRequest) -> bool:
    if not hub().settings.metrics:
        return False
    user = await request.auser()
    return (
        isinstance(user, PermissionsMixin)
        and getattr(user, "is_staff", False)
        and await user.ahas_perm(VIEW_METRICS)
    )
