"""The app that Chainlit is measured with: it streams what it is asked for, token by token.

Run by the interpreter that has Chainlit, so it knows nothing of this project: an order is the JSON
of `bench.orders`, and its pieces come at the same moments.
"""

from __future__ import annotations

import asyncio
import json
import time

import chainlit

PIECE = " token"


@chainlit.on_message
async def answer(asked: chainlit.Message) -> None:
    orders = json.loads(asked.content)
    told = chainlit.Message(content="")
    per_second, stamped = orders.get("per_second", 0), orders.get("stamped", False)
    await asyncio.sleep(max(0.0, orders.get("at", 0) - time.monotonic()))
    began = time.monotonic()
    for number in range(orders["frames"]):
        due = began + number / per_second if per_second else 0.0
        await asyncio.sleep(max(0.0, due - time.monotonic()) if per_second else 0)
        await told.stream_token(f"@{time.monotonic_ns()} " if stamped else PIECE)
    await told.update()
