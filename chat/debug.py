"""The debug API of PROTOCOL §5, for staff. To everybody else it is absent."""

from __future__ import annotations

import asyncio
import json

import msgspec
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from sessions_app.access import Action, Identity, can
from sessions_app.values import Transcript

from .apps import hub
from .desk import rows as desk
from .errors import BadRequest
from .identity import identity_of
from .translate import well_formed

EVENTS_LIMIT = 200
EVENTS_LIMIT_MOST = 10_000
TURNS_LIMIT = 50
TURNS_LIMIT_MOST = 500
_MOST_SEQ = 2**53

_encoder = msgspec.json.Encoder()


@require_GET
async def conversations(request: HttpRequest) -> HttpResponse:
    """GET /api/debug/conversations: every live session, newest activity first."""
    await _ensure_staff(request, "view")
    rows = sorted(await desk.rows(), key=lambda row: row.session.last_activity_ms, reverse=True)
    return await _answer([row.as_json() for row in rows])


@require_GET
async def conversation(request: HttpRequest, conv_id: str) -> HttpResponse:
    """GET /api/debug/conversations/<id>: one session in full; its words for who may read them."""
    reader = await _ensure_staff(request, "view")
    detail = await desk.detail(conv_id, reader=reader, turns=0)
    if detail is None:
        raise Http404("there is no such conversation")
    return await _answer(detail.as_json())


@require_GET
async def events(request: HttpRequest, conv_id: str) -> HttpResponse:
    """GET /api/debug/events/<id>?since_seq&type&limit: frames in the log's window."""
    await _ensure_staff(request, "transcript")
    if await hub().sessions.inspect(conv_id) is None:
        raise Http404("there is no such conversation")
    since_seq = _number(request, "since_seq", default=0, most=_MOST_SEQ)
    limit = _number(request, "limit", default=EVENTS_LIMIT, most=EVENTS_LIMIT_MOST)
    types = [name for given in request.GET.getlist("type") for name in given.split(",") if name]
    stream = await hub().streams.look(conv_id)
    frames = await desk.frames(conv_id, since_seq=since_seq, types=types, limit=limit)
    return await _answer(
        {
            "conv_id": conv_id,
            "epoch": stream.epoch,
            "head_seq": stream.head_seq,
            "first_seq": stream.head_seq - stream.frames + 1 if stream.frames else None,
            "events": frames,
        }
    )


@require_GET
async def turns(request: HttpRequest) -> HttpResponse:
    """GET /api/debug/turns?conv_id=…: the last turns, oldest first, each as the model sees it."""
    reader = await _ensure_staff(request, "transcript")
    conv_id = request.GET.get("conv_id", "")
    limit = _number(request, "limit", default=TURNS_LIMIT, most=TURNS_LIMIT_MOST)
    detail = await desk.detail(conv_id, reader=reader, turns=limit)
    if detail is None or detail.said is None:
        raise Http404("there is no such conversation")
    return await _answer(
        {
            "conv_id": conv_id,
            "total": detail.row.session.turns,
            "turns": _turns(detail.said),
        }
    )


def _turns(said: Transcript) -> list[dict[str, object]]:
    return [
        {
            "turn_id": turn.id,
            "inference_id": turn.metadata.inference_id,
            "fingerprint": turn.metadata.fingerprint,
            "outcome": turn.metadata.outcome,
            "blocks": turn.blocks,
        }
        for turn in said.turns
    ]


async def _ensure_staff(request: HttpRequest, action: Action) -> Identity:
    """Who asks, if they may do that to everybody's conversations. Raises Http404."""
    identity = await identity_of(request)
    if not can(identity, action, None):
        raise Http404("there is nothing at this address for you")
    return identity


def _number(request: HttpRequest, name: str, *, default: int, most: int) -> int:
    given = request.GET.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= 16 and int(given) <= most):
        raise BadRequest(f"{name} {given[:40]!r}; expected a whole number from 0 to {most}")
    return int(given)


async def _answer(value: object) -> HttpResponse:
    # In a thread: thousands of sessions or frames take longer than a token should wait.
    body = await asyncio.to_thread(_encoded, value)
    response = HttpResponse(body, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response


def _encoded(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # An engine's text may hold half of a surrogate pair.
        return well_formed(json.dumps(msgspec.to_builtins(value), ensure_ascii=False)).encode()
