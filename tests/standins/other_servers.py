"""Stand-ins for Anthropic's messages and Google's generateContent: one answer each.

They say "Hello there." after a thought. A prompt `no finish` leaves out the word that it is
finished, `error N` refuses with status N, `hang` says half and waits.
"""

from __future__ import annotations

import asyncio

from .http import Exchange, Reply, StandIn

WORDS = ("Hello ", "there.")
SIGNATURE = "c2lnbmVkIGJ5IHRoZSBzdGFuZC1pbg=="


def anthropic_server() -> StandIn:
    return StandIn(_anthropic)


def google_server() -> StandIn:
    return StandIn(_google)


async def _anthropic(exchange: Exchange, reply: Reply) -> None:
    orders = _last_text(exchange.body["messages"])
    if orders.startswith("error "):
        error = {"message": "Refused as told."}
        await reply.json(int(orders[6:]), {"type": "error", "error": error})
        return
    await reply.begin()
    message: dict[str, object] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "stand-in",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1},
    }
    await _named(reply, "message_start", message=message)
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    await _named(reply, "content_block_start", index=0, content_block=thinking)
    for delta in (
        {"type": "thinking_delta", "thinking": "Be kind."},
        {"type": "signature_delta", "signature": SIGNATURE},
    ):
        await _named(reply, "content_block_delta", index=0, delta=delta)
    await _named(reply, "content_block_stop", index=0)
    await _named(reply, "content_block_start", index=1, content_block={"type": "text", "text": ""})
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        await _named(reply, "content_block_delta", index=1, delta=delta)
        if orders == "hang":
            await asyncio.Event().wait()
    await _named(reply, "content_block_stop", index=1)
    if orders != "no finish":
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        await _named(reply, "message_delta", delta=ending, usage={"output_tokens": 9})
        await _named(reply, "message_stop")
    await reply.end()


async def _named(reply: Reply, event: str, **content: object) -> None:
    await reply.data({"type": event, **content}, event)


async def _google(exchange: Exchange, reply: Reply) -> None:
    orders = _last_text(exchange.body["contents"])
    if orders.startswith("error "):
        error = {"code": int(orders[6:]), "message": "Refused as told."}
        await reply.json(int(orders[6:]), {"error": error})
        return
    await reply.begin()
    await reply.data(_candidate({"text": "Be kind.", "thought": True}))
    await reply.data(_candidate({"text": WORDS[0]}))
    if orders == "hang":
        await asyncio.Event().wait()
    last = _candidate({"text": WORDS[1]})
    if orders != "no finish":
        last["candidates"][0]["finishReason"] = "STOP"
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 9, "cachedContentTokenCount": 3}
    await reply.data({**last, "usageMetadata": counts})
    await reply.end()


def _candidate(part: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]}


def _last_text(messages: object) -> str:
    """The text of the last message, in either of the two shapes."""
    assert isinstance(messages, list)
    last = messages[-1]
    parts = last.get("parts") or last["content"]
    return parts if isinstance(parts, str) else str(parts[-1]["text"])
