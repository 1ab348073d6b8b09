"""A stand-in for Google's generateContent.

It says "Hello there." after a thought. The last prompt says otherwise:

    no finish       leave out the word that it is finished
    cut             break the chunked body in mid-answer
    error N         refuse with status N
    hang            say half, then nothing
    segments        thought, words, thought, words
    length          stop at the model's limit
    filtered        stop at the content filter
    signed          words that carry a signature
    call …          tool calls, see `orders`; the first carries a signature, each is sent whole

Arguments that are no JSON object end as Google ends them: MALFORMED_FUNCTION_CALL. A history that
Google refuses is refused: see `_refusal`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .http import Exchange, Reply, StandIn
from .orders import AFTER, BEFORE, THOUGHT, Plan, plan, said

WORDS = ("Hello ", "there.")
SIGNATURE = "c2lnbmVkIGJ5IEdvb2dsZQ=="
COUNTS = {"promptTokenCount": 10, "candidatesTokenCount": 9, "cachedContentTokenCount": 3}

Part = dict[str, Any]


def google_server() -> StandIn:
    """A server that is not yet running: enter it with `async with`."""
    return StandIn(_answer)


async def _answer(exchange: Exchange, reply: Reply) -> None:
    orders = _prompt(exchange)
    if orders.startswith("error "):
        await _refuse(reply, int(orders[6:]), "Refused as told.")
        return
    if refusal := _refusal(exchange):
        await _refuse(reply, 400, refusal)
        return
    results = _results(exchange)
    made = sum(
        "functionCall" in part for content in _contents(exchange) for part in _parts(content)
    )
    calls = plan(orders, answered=bool(results), made=made)
    await reply.begin()
    if calls is not None:
        await _call(reply, calls)
    elif results:
        await _finish(reply, {"text": said(results)})
    else:
        await _say(reply, orders)


async def _say(reply: Reply, orders: str) -> None:
    match orders:
        case "segments":
            for thought, words in (("One.", "First. "), ("Two.", "Second.")):
                await _send(reply, {"text": thought, "thought": True})
                await _send(reply, {"text": words})
            await _finish(reply, {"text": ""})
        case "signed":
            await _finish(reply, {"text": "Signed.", "thoughtSignature": SIGNATURE})
        case _:
            await _send(reply, {"text": "Be kind.", "thought": True})
            await _send(reply, {"text": WORDS[0]})
            if orders == "hang":
                await asyncio.Event().wait()
            if orders == "cut":
                await _send(reply, {"text": WORDS[1]})
                return
            reasons = {"no finish": "", "length": "MAX_TOKENS", "filtered": "SAFETY"}
            await _finish(reply, {"text": WORDS[1]}, reasons.get(orders, "STOP"))


async def _call(reply: Reply, plan: Plan) -> None:
    if "think" in plan.flags:
        await _send(reply, {"text": THOUGHT, "thought": True})
    if "text" in plan.flags:
        await _send(reply, {"text": BEFORE})
    signature = {"thoughtSignature": SIGNATURE}
    for number, call in enumerate(plan.calls):
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError:
            await _finish(reply, {"text": ""}, "MALFORMED_FUNCTION_CALL")
            return
        made = {"name": call.name, "args": arguments} | ({"id": call.id} if call.id else {})
        await _send(reply, {"functionCall": made, **({} if number else signature)})
        if "cut" in plan.flags:
            return
        if "hang" in plan.flags:
            await asyncio.Event().wait()
    after = {"text": AFTER if "after" in plan.flags else ""}
    await _finish(reply, after, "MAX_TOKENS" if "length" in plan.flags else "STOP")


async def _send(reply: Reply, part: Part) -> None:
    await reply.data(_chunk(part))


async def _finish(reply: Reply, part: Part, reason: str = "STOP") -> None:
    last = _chunk(part)
    if reason:
        last["candidates"][0]["finishReason"] = reason
    await reply.data({**last, "usageMetadata": COUNTS})
    await reply.end()


def _chunk(part: Part) -> dict[str, list[dict[str, Any]]]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]}


async def _refuse(reply: Reply, status: int, message: str) -> None:
    await reply.json(status, {"error": {"code": status, "message": message}})


def _contents(exchange: Exchange) -> list[dict[str, Any]]:
    contents = exchange.body["contents"]
    assert isinstance(contents, list)
    return contents


def _parts(content: dict[str, Any]) -> list[Part]:
    parts = content["parts"]
    assert isinstance(parts, list)
    return parts


def _prompt(exchange: Exchange) -> str:
    """The last text of the user."""
    texts = [
        part["text"]
        for content in _contents(exchange)
        if content["role"] == "user"
        for part in _parts(content)
        if "text" in part
    ]
    return str(texts[-1])


def _results(exchange: Exchange) -> list[str]:
    """What the tools said, where the request ends with it; an error says so."""
    told = []
    for part in _parts(_contents(exchange)[-1]):
        if "functionResponse" in part:
            response = part["functionResponse"]["response"]
            told += [f"error: {v}" if name == "error" else str(v) for name, v in response.items()]
    return told


def _refusal(exchange: Exchange) -> str:
    """Why Google refuses this history; empty if it does not."""
    waiting: list[str] = []
    for content in _contents(exchange):
        parts = _parts(content)
        given = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
        if given != waiting:
            return f"function calls {waiting} and responses {given} do not match"
        calls = [part for part in parts if "functionCall" in part]
        if calls and "thoughtSignature" not in calls[0]:
            return "the first function call has no thought_signature"
        waiting = [part["functionCall"]["name"] for part in calls]
    return f"function calls {waiting} without responses" if waiting else ""
