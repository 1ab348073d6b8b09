"""One line in the log for each thing an operator does, or tries to do."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.http import HttpRequest

from sessions_app.access import Action
from sessions_app.inference.errors import Refused

from ..identity import identity_of, name_of, permitted

logger = logging.getLogger("webchat.audit")


def audit(*, actor: str, owner: str | None, action: str, conv_id: str, outcome: str) -> None:
    """Notes who wanted what of which conversation, and what came of it.

    `owner` is the actor as conversations know owners: `user:<pk>`. JSON with every control
    character escaped: nobody's name can begin a line of its own.
    """
    told = {
        "actor": actor,
        "actor_id": owner,
        "action": action,
        "conversation": conv_id,
        "outcome": outcome,
    }
    logger.info("audit %s", json.dumps(told).replace("\x7f", "\\u007f"))


@asynccontextmanager
async def noted(
    request: HttpRequest, action: Action, conv_id: str, *, as_: str
) -> AsyncIterator[None]:
    """What is done within is permitted, or Http404; and it is noted, unless the own owner does it.

    `as_` is what the note calls it.
    """
    info = await permitted(request, action, conv_id)
    identity = await identity_of(request)
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except Refused as refusal:
        outcome = refusal.code
        raise
    finally:
        if identity.owner != info.owner:
            audit(
                actor=await name_of(request),
                owner=identity.owner,
                action=as_,
                conv_id=conv_id,
                outcome=outcome,
            )
