"""The way the documentation of Channels shows: `group_send` of a dict, sent on by each consumer.

Its layer holds more than it does as shipped, so that it loses nothing and every frame counts.
"""

from __future__ import annotations

import asyncio
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="bench",
    INSTALLED_APPS=["channels"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels.layers.InMemoryChannelLayer",
            "CONFIG": {"capacity": 1_000_000},
        }
    },
)
django.setup()

# ruff: noqa: E402 - the settings come first
import msgspec
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter

from .frame import END, frame
from .orders import Orders

_tasks: set[asyncio.Task[None]] = set()


class StockConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        self.group = f"room{self.scope['path'].replace('/', '.')}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        orders = msgspec.convert(content, Orders)
        task = asyncio.create_task(_answer(self.group, orders), name=f"answer:{self.group}")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def stock_frame(self, event: dict[str, Any]) -> None:
        await self.send_json(event["frame"])


async def _answer(group: str, orders: Orders) -> None:
    layer = get_channel_layer()
    assert layer is not None
    number = 0
    async for piece in orders.pieces():
        number += 1
        told = msgspec.json.decode(frame(number, piece))
        await layer.group_send(group, {"type": "stock.frame", "frame": told})
    told = msgspec.json.decode(END)
    await layer.group_send(group, {"type": "stock.frame", "frame": told})


application = ProtocolTypeRouter({"websocket": StockConsumer.as_asgi()})
