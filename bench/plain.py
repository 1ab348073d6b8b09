"""The measure of all: `websockets` alone, broadcasting a text to who is on a path.

No number, no log, no bound, no owner: what it costs to put a frame on a socket at all.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve

from .frame import END, frame
from .orders import Orders

_rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)
_tasks: set[asyncio.Task[None]] = set()


async def _answer(path: str, orders: Orders) -> None:
    number = 0
    async for piece in orders.pieces():
        number += 1
        broadcast(_rooms[path], frame(number, piece))
    broadcast(_rooms[path], END)


async def _socket(connection: ServerConnection) -> None:
    assert connection.request is not None
    path = connection.request.path
    room = _rooms[path]
    room.add(connection)
    try:
        async for message in connection:
            assert isinstance(message, str)
            task = asyncio.create_task(_answer(path, Orders.decode(message)), name=f"answer:{path}")
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)
    finally:
        room.discard(connection)


async def main(port: int) -> None:
    async with serve(_socket, "127.0.0.1", port, compression=None, max_queue=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
