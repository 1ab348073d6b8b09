"""The JSON calls of PROTOCOL §5. Each reads, asks the hub, and answers."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from sessions_app.inference.errors import AlreadyDecided, ProfileNotFound, unknown
from sessions_app.values import Policy, Queued, Submitted

from .apps import hub
from .decisions import decide_pause
from .desk.audit import noted
from .errors import BadRequest, PromptTooLong, UnsupportedMediaType
from .identity import identity_of, name_of, permitted
from .ports import Decision, Resolved
from .submission import PROFILE_COOKIE, cookie_profile, submit_prompt

T = TypeVar("T")
_encoder = msgspec.json.Encoder()


class _PromptRequest(msgspec.Struct):
    prompt: str | None = None
    text: str | None = None
    conv_id: str | None = None
    idempotency_key: str | None = None
    overrides: dict[str, object] | None = None
    policy: Policy = "queue"


class _CancelRequest(msgspec.Struct):
    conv_id: str
    inference_id: str | None = None
    queue: bool = False


class _QueuedRequest(msgspec.Struct):
    conv_id: str
    idempotency_key: str


class _StepModeRequest(msgspec.Struct):
    conv_id: str
    enabled: bool


class _DecisionRequest(msgspec.Struct):
    conv_id: str
    pause_id: str
    decision: Decision = "continue"
    edits: dict[str, dict[str, Any]] | None = None
    message: str = ""


class _ProfileRequest(msgspec.Struct):
    slug: str | None = None
    profile: str | None = None


@require_POST
async def chat(request: HttpRequest, profile: str | None = None) -> HttpResponse:
    """POST /chat and /chat/<profile>: starts an inference."""
    body = _json(request, _PromptRequest)
    answer, replayed = await submit_prompt(
        request,
        conv_id=body.conv_id,
        prompt=body.prompt if body.prompt is not None else body.text or "",
        profile=profile or request.GET.get("profile"),
        idempotency_key=request.headers.get("Idempotency-Key")
        or request.headers.get("X-Idempotency-Key")
        or body.idempotency_key,
        overrides=body.overrides,
        policy=body.policy,
    )
    response = _submitted(answer)
    if replayed:
        response["Idempotency-Replayed"] = "true"
    return response


def _submitted(answer: Submitted) -> HttpResponse:
    ids = {
        "conv_id": answer.conv_id,
        "session_id": answer.conv_id,
        "idempotency_key": answer.idempotency_key,
    }
    if isinstance(answer, Queued):
        place = {"queue_position": answer.position, "queue_depth": answer.depth}
        return _answer({"status": "queued", **place, **ids}, status=202)
    return _answer(
        {
            "status": "started",
            **ids,
            "run_id": answer.conv_id,
            "inference_id": answer.inference_id,
            "turn_id": answer.turn_id,
        }
    )


@require_POST
async def cancel(request: HttpRequest) -> HttpResponse:
    """POST /api/chat/cancel: ends the active inference."""
    body = _json(request, _CancelRequest)
    async with noted(request, "cancel", body.conv_id, as_="cancel"):
        inference_id = await hub().sessions.cancel(
            body.conv_id, inference_id=body.inference_id, queue=body.queue
        )
    return _answer({"cancelled": True, "inference_id": inference_id})


@require_POST
async def remove_queued(request: HttpRequest) -> HttpResponse:
    """POST /api/chat/queue/remove: takes a waiting prompt out of the queue."""
    body = _json(request, _QueuedRequest)
    async with noted(request, "cancel", body.conv_id, as_="remove-queued"):
        await hub().sessions.remove_queued(body.conv_id, body.idempotency_key)
    return _answer({"removed": True})


@require_POST
async def run_queued(request: HttpRequest) -> HttpResponse:
    """POST /api/chat/queue/run: ends the active inference for a prompt that waits."""
    body = _json(request, _QueuedRequest)
    async with noted(request, "cancel", body.conv_id, as_="run-queued"):
        cancelled = await hub().sessions.run_queued_now(body.conv_id, body.idempotency_key)
    return _answer({"queue_position": 1, "inference_id": cancelled})


@require_POST
async def step_mode(request: HttpRequest) -> HttpResponse:
    """POST /api/debug/step-mode: the owner, or staff, has the agent stop at each step."""
    body = _json(request, _StepModeRequest)
    by = await name_of(request)
    async with noted(request, "step", body.conv_id, as_=f"step-{'on' if body.enabled else 'off'}"):
        await hub().sessions.set_step_mode(body.conv_id, body.enabled, by=by)
    return _answer({"conv_id": body.conv_id, "enabled": body.enabled})


@require_POST
async def decide(request: HttpRequest) -> HttpResponse:
    """POST /api/debug/continue: ends a pause with a person's decision."""
    body = _json(request, _DecisionRequest)
    try:
        resolved = await decide_pause(
            request,
            body.conv_id,
            body.pause_id,
            body.decision,
            edits=body.edits,
            message=body.message,
        )
    except AlreadyDecided as late:
        error = {"error": str(late), "code": late.code, "pause": _pause(late.resolution)}
        return _answer(error, status=409)
    return _answer({"pause": _pause(resolved)})


def _pause(resolved: Resolved) -> dict[str, str]:
    return {
        "pause_id": resolved.pause_id,
        "phase": resolved.phase,
        "decision": resolved.decision,
        "by": resolved.by,
    }


@require_GET
async def profiles(request: HttpRequest) -> HttpResponse:
    """GET /api/chat/profiles: the configured profiles, in configured order."""
    return _answer(
        [
            {
                "slug": profile.slug,
                "title": profile.title,
                "default_prompt": profile.default_prompt,
                "model": profile.model,
                "tools": profile.tools,
                "default": profile.default,
            }
            for profile in hub().sessions.profiles()
        ]
    )


@require_http_methods(["GET", "POST"])
async def profile(request: HttpRequest) -> HttpResponse:
    """GET and POST /api/chat/profile: the profile that new conversations of this browser get."""
    known = {info.slug: info for info in hub().sessions.profiles()}
    if request.method == "GET":
        default = next(slug for slug, info in known.items() if info.default)
        return _answer({"slug": cookie_profile(request.COOKIES) or default})
    body = _json(request, _ProfileRequest)
    slug = body.slug or body.profile
    if not slug:
        raise BadRequest('no profile was named; send {"slug": "<profile>"}')
    if slug not in known:
        raise ProfileNotFound(unknown("profile", slug[:80], known))
    response = _answer({"slug": slug})
    response.set_cookie(
        PROFILE_COOKIE,
        slug,
        max_age=settings.SESSION_COOKIE_AGE,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure(),
    )
    return response


@require_GET
async def timeline(request: HttpRequest) -> HttpResponse:
    """GET /api/timeline: the fold of a conversation's frames."""
    info = await permitted(request, "transcript", request.GET.get("conv_id", ""))
    since = request.GET.get("since_version", "0")
    if not (since.isascii() and since.isdigit() and len(since) <= 16):
        raise BadRequest(
            f"since_version {since[:40]!r}; expected a version as the timeline gave it"
        )
    return _answer(await hub().streams.snapshot(info.conv_id, since_version=int(since)))


@require_GET
async def conversations(request: HttpRequest) -> HttpResponse:
    """GET /api/conversations: the caller's live conversations, newest activity first."""
    identity = await identity_of(request)
    owned = () if identity.owner is None else await hub().sessions.owned_by(identity.owner)
    heads = await hub().streams.heads([info.conv_id for info in owned])
    return _answer(
        [
            {
                "conv_id": info.conv_id,
                "title": info.title,
                "profile": info.profile,
                "running": info.running,
                "paused": info.paused,
                "queue_depth": info.queue_depth,
                "head_seq": heads[info.conv_id],
                "last_activity_ms": info.last_activity_ms,
            }
            for info in owned
        ]
    )


@require_GET
async def healthz(request: HttpRequest) -> HttpResponse:
    """GET /healthz: the process answers."""
    return _answer({"status": "ok"})


@require_GET
async def readyz(request: HttpRequest) -> HttpResponse:
    """GET /readyz: this process takes work, or 503 with the failing part."""
    failing = list(hub().failing())
    try:
        await sync_to_async(connection.ensure_connection)()
    except Exception:  # noqa: BLE001 - whatever the database raises, it is not ready
        failing.append("database")
    if failing:
        return _answer({"status": "unavailable", "failing": failing}, status=503)
    return _answer({"status": "ready"})


def _json(request: HttpRequest, type_: type[T]) -> T:
    """The body as `type_`. Raises a refusal that says what was got and expected."""
    content_type = request.content_type or ""
    if content_type != "application/json":
        raise UnsupportedMediaType(f"content type {content_type[:80]!r}; expected application/json")
    try:
        return msgspec.json.decode(request.body, type=type_)
    except RequestDataTooBig:
        limit = hub().settings.body_max_bytes
        raise PromptTooLong(f"the body is larger than {limit} bytes; shorten it") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not what this call takes: {error}") from None


def _answer(value: object, *, status: int = 200) -> HttpResponse:
    response = HttpResponse(_encoder.encode(value), status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response
