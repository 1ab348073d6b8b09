"""ProviderEngine: a model behind an HTTP API, through pydantic-ai's interface for one request.

Importing this module imports pydantic-ai, which takes seconds. Only `catalog` does, when it builds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from ssl import SSLContext
from typing import assert_never

import httpx2
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    FinishReason,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import Model, StreamedResponse
from pydantic_ai.usage import RequestUsage

from ..errors import ProviderFailed, WebchatError
from ..events import (
    ModelCallFinished,
    ProviderError,
    StopReason,
    TextDelta,
    ThinkingDelta,
    Usage,
    publish,
)
from ..tools import offered
from ..turns import ToolCall, Turn
from .chunks import with_compiled_chunks
from .failures import CUT, UNREADABLE, Failure, explain
from .merging import merge_waiting
from .transcript import answer, tools_for, transcript
from .wires import Endpoint

logger = logging.getLogger(__name__)

MERGE_LIMIT = 32
"""Deltas that go out as one at most: about 10 ms of the library's work."""

QUIET_TURNS = 2
"""Turns of the event loop without a delta until what has come goes out. The library takes one turn
for a delta that is there already, so two mean that it waits for the provider."""

STOP_REASONS: Mapping[FinishReason | None, StopReason] = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tool_calls",
    "content_filter": "content_filter",
    None: "stop",  # the provider gave a reason that the library has no name for
}


class ProviderEngine:
    """One model at one address. Owns one HTTP client, which all calls share.

    Any number of `infer` may run at once. Cancelling one closes its request's connection. Nothing
    is retried. When used from a second event loop, it makes a client for that loop.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http = _http_client(endpoint)
        self._model = _model(endpoint, self._http)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.name!r})"

    @property
    def model(self) -> str:
        return self._endpoint.name

    async def infer(self, turn: Turn) -> Turn:
        """Raises ProviderFailed for whatever goes wrong at the provider or on the way to it.

        An answer without the provider's own word that it is finished is a cut answer, and fails:
        a call in it is not made. Offers the tools of `offered()`; calls come after the text.
        """
        model = self._model_of_this_loop()
        tools, choice = tools_for(turn, offered(), model.system)
        deltas = _Deltas()
        begun = False
        try:
            async with (
                _every_response_closed(),
                model_request_stream(
                    model,
                    transcript(turn, model.system),
                    model_settings=choice,
                    model_request_parameters=tools,
                ) as stream,
            ):
                begun = True
                async for event in stream:
                    deltas.add(event)
            deltas.flush()
            blocks = answer(stream.get(), model.system)
            finished = self._finish(stream, calls=any(isinstance(b, ToolCall) for b in blocks))
        except WebchatError:
            raise
        except Exception as error:
            deltas.flush()
            failure = explain(error, self._endpoint, begun=begun)
            if failure is not None:
                raise _published(failure) from None  # the cause may hold a key: see ProviderError
            # The library stumbled over what the provider sent, or we have a bug: keep the trace.
            logger.exception("%s: unexpected error while reading an answer", self.model)
            name = type(error).__name__
            raise _published(
                Failure(sentence=f"{UNREADABLE} ({name}).", facts=f"{self.model} {name}")
            ) from error
        finally:
            deltas.close()
        publish(finished)
        return turn.with_blocks(*blocks)

    async def aclose(self) -> None:
        """Closes the HTTP connections. Safe to call twice; a later `infer` opens new ones."""
        loop, self._loop = self._loop, None
        if loop is None or loop is asyncio.get_running_loop():
            await self._http.aclose()

    def _model_of_this_loop(self) -> Model:
        """A connection belongs to the loop that opened it; another loop gets a pool of its own."""
        loop = asyncio.get_running_loop()
        if self._http.is_closed or (self._loop is not None and self._loop is not loop):
            self._http = _http_client(self._endpoint)
            self._model = _model(self._endpoint, self._http)
        self._loop = loop
        return self._model

    def _finish(self, stream: StreamedResponse, *, calls: bool) -> ModelCallFinished:
        """How the provider says it ended. Raises ProviderFailed for an error, or if it is mute."""
        details = stream.provider_details or {}
        # The library reports `stop` for a stream that just ends. What the provider said is here.
        reason = details.get("finish_reason") or details.get("block_reason")
        if reason is None and stream.finish_reason != "content_filter":
            raise _published(Failure(sentence=CUT, facts=f"{self.model}: no finish reason"))
        if stream.finish_reason == "error":
            said = str(reason)[:40]
            raise _published(
                Failure(
                    sentence=f"The model ended its answer with an error ({said}). Try again.",
                    facts=f"{self.model}: finish reason {said}",
                )
            )
        stop_reason = STOP_REASONS[stream.finish_reason]
        if calls and stop_reason == "stop":  # Google's word for it, and some local servers'
            stop_reason = "tool_calls"
        return ModelCallFinished(stop_reason=stop_reason, usage=_usage(stream.usage))


def _published(failure: Failure) -> ProviderFailed:
    logger.warning("the model's service failed: %s", failure.facts)
    publish(ProviderError(detail=f"{failure.facts}: {failure.words or '(no words)'}"))
    return ProviderFailed(failure.sentence)


_responses: ContextVar[list[httpx2.Response]] = ContextVar("webchat_provider_responses")


@asynccontextmanager
async def _every_response_closed() -> AsyncIterator[None]:
    """Closes in the end each HTTP response that this task opened inside the block.

    Google's library leaves its connection open when it is cancelled between two chunks.
    """
    token = _responses.set([])
    try:
        yield
    finally:
        for response in _responses.get():
            await response.aclose()
        _responses.reset(token)


class _Deltas:
    """Publishes deltas. Those that have arrived together go out as one.

    It counts turns of the event loop, not time: when the provider has nothing more for us, what has
    come goes out within a fraction of a millisecond, and a busy loop merges more.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._kind: type[TextDelta | ThinkingDelta] = TextDelta
        self._quiet = 0
        self._next_turn: asyncio.Handle | None = None
        self._refused: WebchatError | None = None

    def add(self, event: ModelResponseStreamEvent) -> None:
        """Raises what the sink raised for an earlier delta."""
        if self._refused is not None:
            raise self._refused
        match event:
            case (
                PartStartEvent(part=TextPart(content=text))
                | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
            ) if text:
                self._append(TextDelta, text)
            case (
                PartStartEvent(part=ThinkingPart(content=text))
                | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text)))
            ) if text:
                self._append(ThinkingDelta, text)
            case _:
                pass  # the rest repeats what these said, or is of calls: those are whole in the end

    def _append(self, kind: type[TextDelta | ThinkingDelta], text: str) -> None:
        if kind is not self._kind:
            self.flush()
            self._kind = kind
        self._pieces.append(text)
        self._quiet = 0
        if len(self._pieces) >= MERGE_LIMIT:
            self.flush()
        elif self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._next_turn = None
        self._quiet += 1
        if self._quiet < QUIET_TURNS:
            self._next_turn = asyncio.get_running_loop().call_soon(self._turn)
            return
        try:
            self.flush()
        except WebchatError as error:
            self._refused = error  # nobody is there to catch it: the next `add` or `flush` raises

    def flush(self) -> None:
        if self._refused is not None:
            raise self._refused
        text, self._pieces = "".join(self._pieces), []
        if text:
            publish(self._kind(text))

    def close(self) -> None:
        """Forgets what was not published. Nothing comes after this."""
        if self._next_turn is not None:
            self._next_turn.cancel()


def _usage(usage: RequestUsage) -> Usage | None:
    if usage.unmeasured_requests:  # the provider counted nothing
        return None
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cache_read_tokens,
    )


def _http_client(endpoint: Endpoint) -> httpx2.AsyncClient:
    timeout = httpx2.Timeout(endpoint.read_timeout, connect=endpoint.connect_timeout)

    async def keep_time(request: httpx2.Request) -> None:
        # Each provider's library sends a timeout of its own with its requests. Ours holds.
        request.extensions["timeout"] = timeout.as_dict()

    async def keep_track(response: httpx2.Response) -> None:
        _responses.get().append(response)
        merge_waiting(response)

    return httpx2.AsyncClient(
        verify=_tls(),
        timeout=timeout,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
        follow_redirects=False,
        event_hooks={"request": [keep_time], "response": [keep_track]},
    )


@cache
def _tls() -> SSLContext:
    """One for all engines: loading the certificates takes 50 ms."""
    return httpx2.create_ssl_context()


def _model(endpoint: Endpoint, http: httpx2.AsyncClient) -> Model:
    """The library's model. Imports that provider's own library, and not the two others."""
    match endpoint.wire.name:
        case "openai-chat":
            return _openai_model(endpoint, http)
        case "anthropic":
            return _anthropic_model(endpoint, http)
        case "google":
            return _google_model(endpoint, http)
        case _:
            assert_never(endpoint.wire.name)


def _openai_model(endpoint: Endpoint, http: httpx2.AsyncClient) -> Model:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionChunk
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    client = with_compiled_chunks(AsyncOpenAI, ChatCompletionChunk)(
        api_key=endpoint.api_key or "no-key",  # without one the library looks into the environment
        base_url=endpoint.base_url,
        max_retries=0,
        http_client=http,
    )
    if endpoint.is_own:
        return OpenAIChatModel(endpoint.model, provider=OpenAIProvider(openai_client=client))
    client.organization = client.project = None  # from the environment, and for OpenAI alone
    provider = OpenAICompatibleProvider("openai-compatible", openai_client=client)
    return OpenAIChatModel(endpoint.model, provider=provider)


def _anthropic_model(endpoint: Endpoint, http: httpx2.AsyncClient) -> Model:
    from anthropic import AsyncAnthropic
    from anthropic.types import RawMessageStreamEvent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = with_compiled_chunks(AsyncAnthropic, RawMessageStreamEvent)(
        api_key=endpoint.api_key, base_url=endpoint.base_url, max_retries=0, http_client=http
    )
    return AnthropicModel(endpoint.model, provider=AnthropicProvider(anthropic_client=client))


def _google_model(endpoint: Endpoint, http: httpx2.AsyncClient) -> Model:
    from google.genai import Client
    from google.genai.types import HttpOptions
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    # Without retry_options it tries once. Without a timeout it asks the server for no deadline.
    options = HttpOptions(
        base_url=endpoint.base_url,
        httpx_async_client=http,
        client_args={"verify": _tls()},
        async_client_args={"verify": _tls()},
    )
    client = Client(vertexai=False, api_key=endpoint.api_key, http_options=options)
    return GoogleModel(endpoint.model, provider=GoogleProvider(client=client))
