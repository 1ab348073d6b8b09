"""What transport does when Django says that somebody signed in."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest

from .control import CLOSE_RESYNC, close_sockets
from .identity import VISITOR_KEY


@receiver(user_logged_in)
def keep_visitors_conversations(
    sender: object, request: HttpRequest | None, user: Any, **kwargs: Any
) -> None:
    """Gives the visitor's conversations to the account; their sockets come back as its own."""
    hub = apps.get_app_config("chat").hub  # type: ignore[attr-defined] # ours, by its label
    visitor = request.session.pop(VISITOR_KEY, None) if request is not None else None
    if hub is None or visitor is None:
        return

    async def transfer() -> None:
        moved = await hub.sessions.transfer(f"visitor:{visitor}", f"user:{user.pk}")
        for conv_id in moved:
            await close_sockets(conv_id, CLOSE_RESYNC)

    async_to_sync(transfer)()
