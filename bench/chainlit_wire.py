"""Chainlit under test: a session for each socket, spoken to by Socket.IO as its page does."""

from __future__ import annotations

import json
from uuid import uuid4

from .client import Wire
from .orders import Orders
from .servers import Server

PING = b"\x81\x012"
"""Engine.IO's, as a whole text message; a client that does not answer is dropped."""


class ChainlitWire(Wire):
    """A socket of a session of its own. An answer ends where its task does."""

    END = b'"task_end"'
    DELTA = b'"stream_token"'

    async def open(self) -> ChainlitWire:
        """Returns once Chainlit has said all that it says to a page that opens."""
        opened = self.count(1)
        await super().open()
        await opened
        connected = self.count(1)
        who = {"sessionId": str(uuid4()), "clientType": "webapp", "userEnv": "{}"}
        self.send(f"40{json.dumps(who)}")
        await connected
        greeted = self.count(3)
        self.send('42["connection_successful"]')
        await greeted
        return self

    def _take(self, data: bytes, place: int) -> int:
        if data.find(PING, place) >= 0:
            self.send("3")
        return super()._take(data, place)


class Chainlit(Server):
    """Chainlit, running `bench/chainlit_app.py`."""

    async def open(self, conv: str, **query: str) -> Wire:
        return await ChainlitWire(f"{self.url}/ws/socket.io/?EIO=4&transport=websocket").open()

    async def order(self, conv: str, orders: Orders, wire: Wire) -> None:
        message = {
            "id": str(uuid4()),
            "name": "User",
            "type": "user_message",
            "output": orders.encode(),
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
        wire.send(f"42{json.dumps(['client_message', {'message': message}])}")
