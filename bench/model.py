"""A model's service, as a process of its own: it speaks OpenAI's wire, and says what it is ordered.

Of the same make as the stand-in that the tests use.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from tests.standins.http import Exchange, Reply, StandIn
from tests.standins.openai_server import prompt_of

from .orders import Orders


async def _answer(exchange: Exchange, reply: Reply) -> None:
    orders = Orders.decode(prompt_of(exchange))
    before, after = _chunk({"content": "…"}).split("…")
    await reply.begin()
    async for piece in orders.pieces():
        await reply.send(f"data: {before}{piece}{after}\n\n")
    await reply.send(f"data: {_chunk({}, 'stop')}\n\ndata: [DONE]\n\n")
    await reply.end()


def _chunk(delta: dict[str, str], reason: str | None = None) -> str:
    """One chunk, with what a service of today puts around a delta."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return json.dumps(
        {
            "id": "chatcmpl-BfWv0aQ8Zk1b2c3d4e5f6g7h8i9j0",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "bench",
            "service_tier": "default",
            "system_fingerprint": "fp_62a23a81ef",
            "choices": [choice],
        },
        ensure_ascii=False,
    )


async def main() -> None:
    """Prints the port it got, and serves until it is told to stop."""
    async with StandIn(_answer) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
