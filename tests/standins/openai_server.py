"""A stand-in for services that speak OpenAI's chat completions.

In a test:       async with openai_server() as server: ... base_url=f"{server.url}/v1"
As a process:    python -m tests.standins.openai_server --port 0      prints the port it got

The last prompt says how to behave; a model named `do:<what>` says it for every prompt:

    think                   reasoning first, then an answer
    deltas N                N deltas, in one write
    error N                 refuse with status N
    error N echo            the same, and repeat the key in the message
    error html              an error page from a proxy
    error in stream         an error object after the first words
    length                  stop at the model's limit
    filtered                stop at the content filter
    no usage                leave out the count of tokens
    cut                     break the chunked body in mid-answer
    no finish               end cleanly, without a finish reason, with [DONE]
    no finish no done       end cleanly, without either
    malformed               send words and JSON that is none, in one write
    odd                     send JSON of another shape
    empty                   send no event at all
    page                    answer 200 with a web page
    drop                    close the connection without an answer
    hang                    take the request and say nothing
    hang after N            say N words, then nothing
    segments                reasoning, words, reasoning, words
    call …                  tool calls, see `orders`

A history that strict services refuse is refused: a call without its result, a result without its
call, arguments that are no JSON object.

Anything else is answered in words. GET /exchanges lists what it saw, for tests in other processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from contextlib import suppress
from typing import Any

from .http import Exchange, Reply, StandIn
from .orders import AFTER, BEFORE, SIGNED, THOUGHT, Plan, plan, said

Delta = dict[str, object]

PROMPT_TOKENS = 11
CACHED_TOKENS = 5


def openai_server(port: int = 0) -> StandIn:
    """A server that is not yet running: enter it with `async with`."""

    async def answer(exchange: Exchange, reply: Reply) -> None:
        if exchange.method == "GET" and exchange.path == "/exchanges":
            await reply.json(200, [_seen(each) for each in server.exchanges[:-1]])
        elif exchange.path.endswith("/chat/completions"):
            await _complete(exchange, reply)
        else:
            await reply.json(404, {"detail": "Not Found"})

    server = StandIn(answer, port=port)
    return server


def prompt_of(exchange: Exchange) -> str:
    """The text of the last message of the user."""
    return next(
        str(each["content"]) for each in reversed(_messages(exchange)) if each["role"] == "user"
    )


async def _complete(exchange: Exchange, reply: Reply) -> None:
    prompt = prompt_of(exchange)
    model = str(exchange.body.get("model"))
    orders = model.removeprefix("do:") if model.startswith("do:") else prompt
    if refusal := _refusal(exchange):
        error = {"message": refusal, "type": "invalid_request_error", "code": None}
        await reply.json(400, {"error": error})
        return
    results = _results(exchange)
    made = sum(len(message.get("tool_calls") or []) for message in _messages(exchange))
    calls = plan(orders, answered=bool(results), made=made)
    if calls is not None:
        await reply.begin()
        await _call(reply, calls)
        return
    words = [f"{word} " for word in f"You said: {prompt}".split()]
    if results:
        words = [said(results)]
    number = next((int(found) for found in re.findall(r"\d+", orders)), 0)
    match re.sub(r"\d+", "N", orders):
        case "error N" | "error N echo" as how:
            key = exchange.headers.get("authorization", "").removeprefix("Bearer ")
            told = f"Refused as told. {key}" if how.endswith("echo") else "Refused as told."
            error = {"message": told, "type": "stand_in_error", "code": None}
            await reply.json(number, {"error": error}, retry_after="7")
        case "error html":
            await reply.whole(502, "<html><h1>Bad gateway</h1>\n</html>", "text/html")
        case "drop":
            return
        case "page":
            await reply.whole(200, "<html>Welcome to our website</html>", "text/html")
        case "hang":
            await asyncio.Event().wait()
        case orders:
            await reply.begin()
            await _stream(reply, orders, number, words)


def _messages(exchange: Exchange) -> list[dict[str, Any]]:
    messages = exchange.body.get("messages")
    assert isinstance(messages, list)
    return messages


def _results(exchange: Exchange) -> list[str]:
    """What the tools said, where the request ends with it."""
    results: list[str] = []
    for message in reversed(_messages(exchange)):
        if message["role"] != "tool":
            break
        results.insert(0, str(message["content"]))
    return results


def _refusal(exchange: Exchange) -> str:
    """Why a strict service refuses this history; empty if it does not."""
    open_ids: list[str] = []
    for message in _messages(exchange):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_ids:
                return f"No call waits for the result {message['tool_call_id']!r}"
            open_ids.remove(message["tool_call_id"])
        elif open_ids:
            return f"The calls {open_ids} have no result"
        for call in message.get("tool_calls") or []:
            try:
                good = isinstance(json.loads(call["function"]["arguments"]), dict)
            except ValueError:
                good = False
            if not good or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"]):
                return f"A call that is none: {call['function']}"
            open_ids.append(call["id"])
    return f"The calls {open_ids} have no result" if open_ids else ""


async def _call(reply: Reply, plan: Plan) -> None:
    if "think" in plan.flags:
        await reply.data(_chunk({"reasoning_content": THOUGHT}))
    await _say(reply, [BEFORE] if "text" in plan.flags else [])
    for index, call in enumerate(plan.calls):
        named = {"name": call.name, "arguments": ""}
        start = {"index": index, "id": call.id, "type": "function", "function": named}
        if "signed" in plan.flags and not index:
            start["extra_content"] = SIGNED
        await reply.data(_chunk({"tool_calls": [start]}))
    # Fragments of all calls by turns: only their index tells them apart.
    for number in range(max(len(call.fragments) for call in plan.calls)):
        if number and "cut" in plan.flags:
            return
        if number and "hang" in plan.flags:
            await asyncio.Event().wait()
        for index, call in enumerate(plan.calls):
            if number < len(call.fragments):
                piece = {"index": index, "function": {"arguments": call.fragments[number]}}
                await reply.data(_chunk({"tool_calls": [piece]}))
    reason = next((flag for flag in ("stop", "length") if flag in plan.flags), "tool_calls")
    await _finish(reply, [AFTER] if "after" in plan.flags else [], reason)


async def _stream(reply: Reply, orders: str, number: int, words: list[str]) -> None:
    match orders:
        case "empty":
            await reply.end()
        case "malformed":
            good = json.dumps(_chunk({"content": "".join(words)}))
            await reply.send(f"data: {good}\n\ndata: {{this is not JSON\n\n")
            await reply.end()
        case "odd":
            await _say(reply, words)
            await reply.data({"choices": [17]})
            await reply.end()
        case "error in stream":
            await _say(reply, words)
            await reply.data({"error": {"message": "Out of memory", "code": 500}})
            await reply.end()
        case "cut":
            await _say(reply, words)
        case "hang after N":
            await _say(reply, words[:number])
            await asyncio.Event().wait()
        case "no finish" | "no finish no done":
            await _say(reply, words)
            await _close(reply, done=orders == "no finish")
        case "think":
            thoughts: list[Delta] = [{"reasoning_content": text} for text in ("Let me ", "think.")]
            for thought in thoughts:
                await reply.data(_chunk(thought))
            await _finish(reply, words)
        case "segments":
            for idea, word in (("One.", "First. "), ("Two.", "Second.")):
                await reply.data(_chunk({"reasoning_content": idea}))
                await reply.data(_chunk({"content": word}))
            await _finish(reply, [])
        case "deltas N":
            one = f"data: {json.dumps(_chunk({'content': 'x'}))}\n\n"
            await reply.send(one * number)
            await _finish(reply, [])
        case "length":
            await _finish(reply, words, "length")
        case "filtered":
            await _finish(reply, words, "content_filter")
        case "no usage":
            await _finish(reply, words, counted=False)
        case _:
            await _finish(reply, words)


async def _say(reply: Reply, words: list[str]) -> None:
    await reply.data(_chunk({"role": "assistant", "content": ""}))
    for word in words:
        await reply.data(_chunk({"content": word}))


async def _finish(
    reply: Reply, words: list[str], reason: str = "stop", *, counted: bool = True
) -> None:
    await _say(reply, words)
    await reply.data(_chunk({}, reason))
    if counted:
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": len(words),
            "total_tokens": PROMPT_TOKENS + len(words),
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
        await reply.data({**_chunk(None), "usage": usage})
    await _close(reply, done=True)


async def _close(reply: Reply, *, done: bool) -> None:
    if done:
        await reply.send("data: [DONE]\n\n")
    await reply.end()


def _chunk(delta: Delta | None, reason: str | None = None) -> dict[str, object]:
    """One chunk of a stream; without a delta, one that has no choices."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "stand-in",
        "choices": [] if delta is None else [choice],
    }


def _seen(exchange: Exchange) -> dict[str, object]:
    return {
        "connection": exchange.connection,
        "path": exchange.path,
        "body": exchange.body,
        "abandoned": exchange.abandoned.is_set(),
        "answered": exchange.answered.is_set(),
    }


async def _serve(port: int) -> None:
    async with openai_server(port) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for OpenAI's chat completions.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.port))


if __name__ == "__main__":
    main()
