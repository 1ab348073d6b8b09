"""A stand-in for Anthropic's messages.

It says "Hello there." after a signed thought. The last prompt says otherwise:

    no finish       leave out the word that it is finished
    cut             break the chunked body in mid-answer
    error N         refuse with status N
    error in stream an error event after the first word
    hang            say half, then nothing
    segments        thought, words, thought, words
    redacted        a thought that nobody may read before the words
    length          stop at the model's limit
    call …          tool calls, see `orders`; ids look like Anthropic's own

A history that Anthropic refuses is refused: see `_refusal`.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from .http import Exchange, Reply, StandIn
from .orders import AFTER, BEFORE, THOUGHT, Plan, plan, said

WORDS = ("Hello ", "there.")
SIGNATURE = "c2lnbmVkIGJ5IHRoZSBzdGFuZC1pbg=="
REDACTED = "c2VjcmV0"

Content = dict[str, Any]


def anthropic_server() -> StandIn:
    """A server that is not yet running: enter it with `async with`."""
    return StandIn(_answer)


async def _answer(exchange: Exchange, reply: Reply) -> None:
    orders = _prompt(exchange)
    if orders.startswith("error ") and orders != "error in stream":
        await _refuse(reply, int(orders[6:]), "Refused as told.")
        return
    if refusal := _refusal(exchange):
        await _refuse(reply, 400, refusal)
        return
    await reply.begin()
    answer = _Answer(reply)
    await answer.begin()
    blocks = [block for message in _messages(exchange) for block in message["content"]]
    results = _results(exchange)
    made = sum(block["type"] == "tool_use" for block in blocks)
    calls = plan(orders, answered=bool(results), made=made)
    if calls is not None:
        await _call(reply, answer, calls)
    elif results:
        await answer.text(said(results))
        await answer.finish("end_turn")
    else:
        await _say(reply, answer, orders)


async def _say(reply: Reply, answer: _Answer, orders: str) -> None:
    match orders:
        case "segments":
            for thought, words in (("One.", "First. "), ("Two.", "Second.")):
                await answer.thought(thought)
                await answer.text(words)
            await answer.finish("end_turn")
        case "redacted":
            await answer.block({"type": "redacted_thinking", "data": REDACTED})
            await answer.text(*WORDS)
            await answer.finish("end_turn")
        case "hang":
            await answer.thought("Be kind.")
            await answer.text(WORDS[0])
            await asyncio.Event().wait()
        case "error in stream":
            await answer.thought("Be kind.")
            await answer.text(WORDS[0])
            await _named(reply, "error", error={"type": "api_error", "message": "Out of memory"})
            await reply.end()
        case "cut" | "no finish":
            await answer.thought("Be kind.")
            await answer.text(*WORDS)
            if orders == "no finish":
                await reply.end()
        case _:
            await answer.thought("Be kind.")
            await answer.text(*WORDS)
            await answer.finish("max_tokens" if orders == "length" else "end_turn")


async def _call(reply: Reply, answer: _Answer, plan: Plan) -> None:
    if "think" in plan.flags:
        await answer.thought(THOUGHT)
    if "text" in plan.flags:
        await answer.text(BEFORE)
    for call in plan.calls:
        start = {"type": "tool_use", "id": call.id.replace("call", "toolu"), "name": call.name}
        await answer.open({**start, "input": {}})
        for number, fragment in enumerate(call.fragments):
            if number and "cut" in plan.flags:
                return
            if number and "hang" in plan.flags:
                await asyncio.Event().wait()
            await answer.delta({"type": "input_json_delta", "partial_json": fragment})
        await answer.close()
    if "after" in plan.flags:
        await answer.text(AFTER)
    reasons = {"stop": "end_turn", "length": "max_tokens"}
    await answer.finish(next((reasons[flag] for flag in reasons if flag in plan.flags), "tool_use"))


class _Answer:
    """Writes a message block by block."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._index = 0

    async def begin(self) -> None:
        message: Content = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "stand-in",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1},
        }
        await _named(self._reply, "message_start", message=message)

    async def thought(self, text: str) -> None:
        thinking = {"type": "thinking_delta", "thinking": text}
        signature = {"type": "signature_delta", "signature": SIGNATURE}
        await self.block({"type": "thinking", "thinking": "", "signature": ""}, thinking, signature)

    async def text(self, *words: str) -> None:
        deltas = [{"type": "text_delta", "text": word} for word in words]
        await self.block({"type": "text", "text": ""}, *deltas)

    async def block(self, start: Content, *deltas: Content) -> None:
        await self.open(start)
        for delta in deltas:
            await self.delta(delta)
        await self.close()

    async def open(self, start: Content) -> None:
        await self._said("content_block_start", content_block=start)

    async def delta(self, delta: Content) -> None:
        await self._said("content_block_delta", delta=delta)

    async def close(self) -> None:
        await self._said("content_block_stop")
        self._index += 1

    async def finish(self, reason: str) -> None:
        ending = {"stop_reason": reason, "stop_sequence": None}
        await _named(self._reply, "message_delta", delta=ending, usage={"output_tokens": 9})
        await _named(self._reply, "message_stop")
        await self._reply.end()

    async def _said(self, event: str, **content: object) -> None:
        await _named(self._reply, event, index=self._index, **content)


async def _named(reply: Reply, event: str, **content: object) -> None:
    await reply.data({"type": event, **content}, event)


async def _refuse(reply: Reply, status: int, message: str) -> None:
    error = {"type": "invalid_request_error", "message": message}
    await reply.json(status, {"type": "error", "error": error})


def _messages(exchange: Exchange) -> list[Content]:
    """The messages, the content of each as a list of blocks."""
    messages = exchange.body["messages"]
    assert isinstance(messages, list)
    return [
        {
            "role": message["role"],
            "content": [{"type": "text", "text": message["content"]}]
            if isinstance(message["content"], str)
            else message["content"],
        }
        for message in messages
    ]


def _prompt(exchange: Exchange) -> str:
    """The last text of the user."""
    texts = [
        block["text"]
        for message in _messages(exchange)
        if message["role"] == "user"
        for block in message["content"]
        if block["type"] == "text"
    ]
    return str(texts[-1])


def _results(exchange: Exchange) -> list[str]:
    """What the tools said, where the request ends with it; an error says so."""
    return [
        ("error: " if block.get("is_error") else "") + "".join(p["text"] for p in block["content"])
        for block in _messages(exchange)[-1]["content"]
        if block["type"] == "tool_result"
    ]


def _refusal(exchange: Exchange) -> str:
    """Why Anthropic refuses this history; empty if it does not."""
    seen: set[str] = set()
    waiting: set[str] = set()
    for message in _messages(exchange):
        given = {b["tool_use_id"] for b in message["content"] if b["type"] == "tool_result"}
        if given != waiting:
            return f"tool_use {sorted(waiting)} and tool_result {sorted(given)} do not match"
        waiting = set()
        for block in message["content"]:
            if block["type"] != "tool_use":
                continue
            if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
                return f"the form of the id {block['id']!r}"
            if block["id"] in seen:
                return "tool_use ids must be unique"
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", block["name"]):
                return f"the form of the name {block['name']!r}"
            seen.add(block["id"])
            waiting.add(block["id"])
    if waiting:
        return f"tool_use {sorted(waiting)} without a tool_result"
    if seen and not exchange.body.get("tools"):
        return "a history with tool_use needs tools"
    return ""
