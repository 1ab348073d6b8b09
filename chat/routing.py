"""The websocket's one address, behind its gates."""

from __future__ import annotations

from typing import Any

from .admission import Admission
from .consumers import ChatConsumer
from .origin import OriginValidator, refuse

WEBSOCKET_PATH = "/ws"

_chat = OriginValidator(Admission(ChatConsumer.as_asgi()))


async def websocket_application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Every websocket of the server: `/ws` is the chat, any other path is refused with 403."""
    if scope["path"] == WEBSOCKET_PATH:
        await _chat(scope, receive, send)
    else:
        await refuse(receive, send)
