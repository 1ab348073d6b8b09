"""A model that says again what it is told, one character at a time."""

from __future__ import annotations

from tests.standins.http import Exchange, Reply, StandIn
from tests.standins.openai_server import prompt_of


def echo_model() -> StandIn:
    """Speaks OpenAI's chat completions. Enter it with `async with`."""
    return StandIn(_answer)


async def _answer(exchange: Exchange, reply: Reply) -> None:
    await reply.begin()
    for character in prompt_of(exchange):
        await reply.data(_chunk({"content": character}, None))
    await reply.data(_chunk({}, "stop"))
    await reply.send("data: [DONE]\n\n")
    await reply.end()


def _chunk(delta: dict[str, str], reason: str | None) -> dict[str, object]:
    return {
        "id": "chatcmpl-echo",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "echo",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
