"""A stand-in for xllamacpp: the same calls in the same threads, and words in place of a model.

The last prompt says how to behave: `long` goes on for ever, `too long` and `broken` are errors,
`cut` ends without a reason, `limit` at the limit, `read` reads a long prompt before the first word.
Anything else is answered with the last prompt. `loaded` are the servers that were made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

loaded: list[Server] = []


class CommonParams(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(model=SimpleNamespace(path=""))


class Server:
    """`asked` is set by the first request, `stopped` when a callback stopped an answer."""

    def __init__(self, params: CommonParams) -> None:
        if not params.model.path.endswith(".gguf"):
            raise RuntimeError("failed to load the model")
        self.params = params
        self.requests: list[dict[str, Any]] = []
        self.threads: list[str] = []
        self.asked = threading.Event()
        self.stopped = threading.Event()
        loaded.append(self)

    def handle_chat_completions(
        self, request: Mapping[str, Any], on_chunk: Callable[[Mapping[str, Any]], bool]
    ) -> None:
        self.requests.append(dict(request))
        self.threads.append(threading.current_thread().name)
        self.asked.set()
        if any(on_chunk(chunk) for chunk in _chunks(request["messages"][-1]["content"])):
            self.stopped.set()


def _chunks(prompt: str) -> Any:
    yield _chunk({"role": "assistant", "content": None})
    match prompt:
        case "too long":
            yield {"error": {"code": 400, "message": "No.", "type": "exceed_context_size_error"}}
            return
        case "broken":
            yield {"error": {"code": 500, "message": "Oh.", "type": "server_error"}}
            return
        case "read":
            for processed in count(step=32):
                yield _chunk({"content": None}) | {"prompt_progress": {"processed": processed}}
        case "long":
            for number in count(1):
                yield _chunk({"content": f"{number} "})
    words = prompt.split()
    for word in words:
        yield _chunk({"content": f"{word} "})
    if prompt == "cut":
        return
    yield _chunk({}, "length" if prompt == "limit" else "stop")
    usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    yield {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 2}}}


def _chunk(delta: dict[str, object], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
