"""A channel layer that loses messages, as every layer may."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from django.utils.module_loading import import_string


class LossyChannelLayer:
    """Another layer, of whose messages `share` are dropped in silence: 0 none, 1 all.

        CHANNEL_LAYERS = {"default": {
            "BACKEND": "chat.testing.LossyChannelLayer",
            "CONFIG": {"share": 0.5, "layer": {"BACKEND": …, "CONFIG": {…}}},
        }}

    Groups are kept as that layer keeps them. `seed` makes the same run lose the same messages.
    """

    def __init__(
        self, *, layer: Mapping[str, Any], share: float = 1.0, seed: int | None = None
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(
                f"got the share {share!r} of messages to drop; expected 0 to 1, as in 0.5"
            )
        self.dropped = 0
        """How many messages it has lost so far."""
        self._layer = import_string(layer["BACKEND"])(**layer.get("CONFIG", {}))
        self._share = share
        self._random = random.Random(seed)  # noqa: S311 - guards nothing

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        if not self._drops():
            await self._layer.send(channel, message)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if not self._drops():
            await self._layer.group_send(group, message)

    def _drops(self) -> bool:
        drops = self._random.random() < self._share
        self.dropped += drops
        return drops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)
