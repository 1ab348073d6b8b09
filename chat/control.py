"""The control group of a conversation: what is said to all its sockets, in every process.

No frame travels here; only closings. A conv_id is no legal group name, so it is hashed.
"""

from __future__ import annotations

import hashlib

from channels.layers import get_channel_layer

CLOSE_RESYNC = 4010


def control_group(conv_id: str) -> str:
    """The group that every consumer of the conversation is in while it is connected."""
    return f"conv.{hashlib.sha256(conv_id.encode()).hexdigest()[:40]}"


async def close_sockets(conv_id: str, code: int) -> None:
    """Asks every socket of the conversation to close with `code`."""
    layer = get_channel_layer()
    assert layer is not None, "settings.CHANNEL_LAYERS has no default layer"
    await layer.group_send(control_group(conv_id), {"type": "control.close", "code": code})
