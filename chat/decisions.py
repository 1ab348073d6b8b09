"""Deciding a pause: the rules that the JSON call and the page's form share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.http import HttpRequest

from .apps import hub
from .desk.audit import noted
from .errors import Forbidden
from .identity import name_of
from .ports import Decision, Resolved


async def decide_pause(
    request: HttpRequest,
    conv_id: str,
    pause_id: str,
    decision: Decision,
    *,
    edits: Mapping[str, Mapping[str, Any]] | None = None,
    message: str = "",
) -> Resolved:
    """Ends the pause in the name of who asks.

    Raises Http404 and Forbidden for who may not, UnknownPause, AlreadyDecided, BadEdits.
    """
    async with noted(request, "decide", conv_id, as_=f"decide:{decision}"):
        await ensure_may_decide(conv_id, pause_id, (await request.auser()).ahas_perm)
        return await hub().sessions.decide(
            conv_id, pause_id, decision, by=await name_of(request), edits=edits, message=message
        )


async def ensure_may_decide(
    conv_id: str, pause_id: str, has_permission: Callable[[str], Awaitable[bool]]
) -> None:
    """Raises Forbidden for who lacks a permission that the pause itself asks for."""
    for permission in await hub().sessions.pause_permissions(conv_id, pause_id):
        if not await has_permission(permission):
            raise Forbidden(f"deciding this pause needs the permission {permission}")
