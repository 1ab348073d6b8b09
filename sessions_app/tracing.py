"""OpenTelemetry spans of inferences, their model calls and their tools, by the GenAI conventions.

Import it only where tracing is on: it needs the packages of requirements-otel.txt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry import context as otel
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from .inference.events import (
    Event,
    InferenceFinished,
    InferenceStarted,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    PromptTaken,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolCallRequested,
    ToolCallStarted,
    Usage,
)

PROVIDERS = {"openai-chat": "openai", "anthropic": "anthropic", "google": "gcp.gemini"}
"""The conventions' names for what stands before the colon of a model; others stay as they are."""

FAILURES = ("failed", "lost", "error", "timeout")


@dataclass(slots=True)
class _Inference:
    """The open spans of one inference."""

    span: Span
    context: otel.Context
    attributes: dict[str, str]
    prompt: str
    call: Span | None = None
    call_began: float = 0.0
    call_has_spoken: bool = False
    requested: dict[str, str] = field(default_factory=dict)
    tools: dict[str, Span] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)


class InferenceSpans:
    """An EventObserver that makes a span of each inference, model call and tool that runs.

    The inference's parent is the span its prompt was sent in, or would be its root. A model call's
    span is current for the engine, a tool's for the tool: what instrumented clients do there nests.
    No span has a word of the conversation, unless `content` is on.
    """

    def __init__(self, tracer: Tracer, *, content: bool = False) -> None:
        self._tracer = tracer
        self._content = content
        self._prompts: dict[str, str] = {}
        self._running: dict[str, _Inference] = {}

    def __call__(self, conv_id: str, event: Event, origin: Origin | None) -> None:
        if origin is None:
            return
        if isinstance(event, PromptTaken | InferenceStarted):
            self._starting(conv_id, event, origin)
            return
        running = self._running.get(origin.inference_id)
        if running is None:
            return
        match event:
            case TextDelta() | ThinkingDelta():
                self._said(running, event)
            case ModelCallStarted():
                self._call_started(running)
            case ModelCallFinished():
                _call_finished(running, event)
            case ToolCallRequested():
                running.requested[event.call_id] = event.name
            case ToolCallStarted():
                self._tool_started(running, event)
            case ToolCallFinished():
                self._tool_finished(running, event)
            case InferenceFinished():
                del self._running[origin.inference_id]
                self._finished(running, event)
            case _:
                pass  # the rest is no work

    def _starting(
        self, conv_id: str, event: PromptTaken | InferenceStarted, origin: Origin
    ) -> None:
        if isinstance(event, PromptTaken):
            if self._content:
                self._prompts[origin.inference_id] = event.content
            return
        provider, _, model = event.model.partition(":")
        attributes = {
            "gen_ai.provider.name": PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model or provider,
            "gen_ai.conversation.id": conv_id,
        }
        span = self._tracer.start_span(
            f"invoke_agent {event.profile}",
            kind=SpanKind.INTERNAL,
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": event.profile,
                "webchat.inference.id": event.inference_id,
                **attributes,
            },
        )
        self._running[event.inference_id] = _Inference(
            span=span,
            context=set_span_in_context(span),
            attributes=attributes,
            prompt=self._prompts.pop(event.inference_id, ""),
        )

    def _call_started(self, running: _Inference) -> None:
        running.call = self._tracer.start_span(
            f"chat {running.attributes['gen_ai.request.model']}",
            context=running.context,
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.stream": True,
                **running.attributes,
            },
        )
        running.call_began, running.call_has_spoken = time.monotonic(), False
        otel.attach(set_span_in_context(running.call, running.context))

    def _said(self, running: _Inference, event: TextDelta | ThinkingDelta) -> None:
        if running.call is not None and not running.call_has_spoken:
            running.call_has_spoken = True
            waited = time.monotonic() - running.call_began
            running.call.set_attribute("gen_ai.response.time_to_first_chunk", waited)
        if self._content and isinstance(event, TextDelta):
            running.text.append(event.text)

    def _tool_started(self, running: _Inference, event: ToolCallStarted) -> None:
        name = running.requested.get(event.call_id, "")
        span = running.tools[event.call_id] = self._tracer.start_span(
            f"execute_tool {name}",
            context=running.context,
            kind=SpanKind.INTERNAL,
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.call.id": event.call_id,
                "gen_ai.tool.type": "function",
            },
        )
        if self._content:
            span.set_attribute("gen_ai.tool.call.arguments", _json(event.input))
        otel.attach(set_span_in_context(span, running.context))

    def _tool_finished(self, running: _Inference, event: ToolCallFinished) -> None:
        span = running.tools.pop(event.call_id, None)
        if span is None:
            return
        if self._content:
            span.set_attribute("gen_ai.tool.call.result", event.result)
        _end(span, event.status)

    def _finished(self, running: _Inference, event: InferenceFinished) -> None:
        for span in (*running.tools.values(), running.call):
            if span is not None:
                _end(span, event.status)
        _tell_usage(running.span, event.usage)
        running.span.set_attribute("gen_ai.response.finish_reasons", (event.stop_reason,))
        if self._content:
            answer = _message("assistant", "".join(running.text), finish_reason=event.stop_reason)
            running.span.set_attribute("gen_ai.input.messages", _message("user", running.prompt))
            running.span.set_attribute("gen_ai.output.messages", answer)
        _end(running.span, event.status)


def _call_finished(running: _Inference, event: ModelCallFinished) -> None:
    if running.call is None:
        return
    _tell_usage(running.call, event.usage)
    running.call.set_attribute("gen_ai.response.finish_reasons", (event.stop_reason,))
    running.call.end()
    running.call = None
    otel.attach(running.context)


def _tell_usage(span: Span, usage: Usage | None) -> None:
    if usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)


def _end(span: Span, status: str) -> None:
    """Ends a span as the protocol names its end."""
    span.set_attribute("webchat.status", status)
    if status in FAILURES:
        span.set_attribute("error.type", status)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _message(role: str, text: str, **more: str) -> str:
    return _json([{"role": role, "parts": [{"type": "text", "content": text}], **more}])


def _json(value: Mapping[str, object] | list[dict[str, object]]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
