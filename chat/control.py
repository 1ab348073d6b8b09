"""What is said to sockets beside their frames: closings, and that somebody's access changed.

No frame travels here. A conv_id is no legal group name, and a session key is a secret: both are
hashed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer, get_channel_layer

from sessions_app.inference.errors import Unavailable

from .apps import installed
from .guard import ACCESS_GROUP, digest

logger = logging.getLogger(__name__)


def control_group(conv_id: str) -> str:
    """The group that every consumer of the conversation is in while it is connected."""
    return f"conv.{digest(conv_id)}"


async def join_control(layer: Any, conv_id: str, channel: str) -> None:
    """Has a consumer hear what is said to the conversation's sockets. Raises Unavailable."""
    await _heard(layer.group_add(control_group(conv_id), channel))


async def leave_control(layer: Any, conv_id: str, channel: str) -> None:
    """The opposite. Raises nothing: a layer that is away knows nobody for long."""
    with suppress(Unavailable):
        await _heard(layer.group_discard(control_group(conv_id), channel))


async def close_sockets(conv_id: str, code: int) -> None:
    """Asks every socket of the conversation to close with `code`. Raises Unavailable."""
    await _heard(_send(control_group(conv_id), {"type": "control.close", "code": code}))


async def _heard(told: Awaitable[None]) -> None:
    try:
        await told
    except Exception as error:
        logger.debug("the channel layer fails", exc_info=True)
        raise Unavailable("the sockets cannot be told just now; try again in a moment") from error


def session_ended(session_key: str, code: int) -> None:
    """Closes every socket of one of Django's sessions with `code`. See `_announce`."""
    _announce({"type": "access.ended", "session": digest(session_key), "code": code})


def owner_changed(owner: str) -> None:
    """Has every socket of that owner checked at once. See `_announce`."""
    _announce({"type": "access.changed", "owner": digest(owner)})


def permissions_changed() -> None:
    """Has every socket checked at once that is there by a permission. See `_announce`."""
    _announce({"type": "access.changed"})


def _announce(message: dict[str, Any]) -> None:
    """Tells the guard of every process; for sync code in any thread and process.

    Does not wait where the hub runs, and never raises: what is lost, the next check finds.
    """
    hub = installed()
    if hub is None and isinstance(get_channel_layer(), InMemoryChannelLayer):
        return  # as in most commands: nobody else hears a layer of this process
    loop = None if hub is None else hub.guard.loop
    if loop is not None and loop.is_running():
        # A channel layer in memory belongs to its loop; another thread must not touch it.
        asyncio.run_coroutine_threadsafe(_say(message), loop)
        return
    try:
        async_to_sync(_say)(message)
    except RuntimeError:  # a loop runs in this thread, and it is not the hub's
        logger.warning("nobody could be told of %s; the next check finds it", message["type"])


async def _say(message: dict[str, Any]) -> None:
    try:
        await _send(ACCESS_GROUP, message)
    except Exception:
        logger.warning("%s was not heard; the next check finds it", message["type"], exc_info=True)


async def _send(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    assert layer is not None, "settings.CHANNEL_LAYERS has no default layer"
    await layer.group_send(group, message)
