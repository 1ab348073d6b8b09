"""The numbers of the session side for Prometheus. docs/operating.md says what each means."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .inference.abandoned import ABANDONED, ABANDONED_KINDS
from .inference.events import (
    Event,
    InferenceFinished,
    InferenceStarted,
    ModelCallFinished,
    Origin,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolCallRequested,
    ToolCallStarted,
)
from .manager import ManagerStatistics

FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
INFERENCE_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOOL_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(slots=True)
class _Running:
    """What has to be remembered of an inference until its end."""

    profile: str
    since: float
    waits_for_token: bool = True
    tools: dict[str, str] = field(default_factory=dict)
    executing: set[str] = field(default_factory=set)


class SessionMetrics:
    """An EventObserver that counts inferences, tokens and tool calls in `registry`.

    Labels have few values: profiles of the settings, statuses of the protocol, and `tools`: names,
    or beginnings of names that end in `*`. What else a model asks for is counted as `unknown`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        tools: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = frozenset(name for name in tools if not name.endswith("*"))
        self._families = tuple(name for name in tools if name.endswith("*"))
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._inferences = Counter(
            "webchat_inferences",
            "Inferences that ended, by how.",
            ("profile", "status"),
            registry=registry,
        )
        self._duration = Histogram(
            "webchat_inference_duration_seconds",
            "From a prompt taken up to its inference's end.",
            ("profile",),
            buckets=INFERENCE_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "webchat_time_to_first_token_seconds",
            "From a prompt taken up to the first text or thought of its answer.",
            ("profile",),
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter(
            "webchat_tokens",
            "Tokens as the providers count them.",
            ("profile", "kind"),
            registry=registry,
        )
        self._cached_tokens = Counter(
            "webchat_cached_tokens",
            "Input tokens that a provider took from its cache.",
            ("profile",),
            registry=registry,
        )
        self._tool_calls = Counter(
            "webchat_tool_calls",
            "Tool calls that ended, by how.",
            ("tool", "status"),
            registry=registry,
        )
        self._tool_duration = Histogram(
            "webchat_tool_call_duration_seconds",
            "How long tool calls ran that began to run.",
            ("tool",),
            buckets=TOOL_BUCKETS,
            registry=registry,
        )

    def __call__(self, conv_id: str, event: Event, origin: Origin | None) -> None:
        if origin is None:
            return
        if isinstance(event, InferenceStarted):
            self._running[event.inference_id] = _Running(event.profile, self._clock())
            return
        running = self._running.get(origin.inference_id)
        if running is None:
            return
        match event:
            case TextDelta() | ThinkingDelta():
                if running.waits_for_token:
                    running.waits_for_token = False
                    waited = self._clock() - running.since
                    self._first_token.labels(running.profile).observe(waited)
            case ToolCallRequested(call_id=call_id, name=name):
                running.tools[call_id] = self._label(name)
            case ToolCallStarted(call_id=call_id):
                running.executing.add(call_id)
            case ToolCallFinished():
                self._tool_finished(event, running)
            case ModelCallFinished(usage=usage) if usage is not None:
                self._tokens.labels(running.profile, "input").inc(usage.input_tokens)
                self._tokens.labels(running.profile, "output").inc(usage.output_tokens)
                self._cached_tokens.labels(running.profile).inc(usage.cached_tokens)
            case InferenceFinished():
                del self._running[origin.inference_id]
                for tool in running.tools.values():  # closed by the end of their inference
                    self._tool_calls.labels(tool, "cancelled").inc()
                self._inferences.labels(running.profile, event.status).inc()
                self._duration.labels(running.profile).observe(self._clock() - running.since)
            case _:
                pass  # the rest is not counted

    def _label(self, tool: str) -> str:
        if tool in self._tools:
            return tool
        families = (family for family in self._families if tool.startswith(family[:-1]))
        return next(families, "unknown")

    def _tool_finished(self, event: ToolCallFinished, running: _Running) -> None:
        tool = running.tools.pop(event.call_id, "unknown")
        self._tool_calls.labels(tool, event.status).inc()
        if event.call_id in running.executing:
            running.executing.remove(event.call_id)
            self._tool_duration.labels(tool).observe(event.duration_ms / 1000)


class SessionCollector(Collector):
    """What the manager holds, and what was abandoned, read when somebody scrapes."""

    def __init__(self, statistics: Callable[[], ManagerStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        sessions = GaugeMetricFamily(
            "webchat_sessions", "Live sessions, by what they do.", labels=("state",)
        )
        sessions.add_metric(("idle",), now.live - now.running)
        sessions.add_metric(("running",), now.running - now.paused)
        sessions.add_metric(("paused",), now.paused)
        yield sessions
        yield GaugeMetricFamily(
            "webchat_stored_conversations", "Unloaded conversations in memory.", value=now.stored
        )
        yield GaugeMetricFamily(
            "webchat_queued_prompts", "Prompts that wait for their turn.", value=now.queued
        )
        abandoned = CounterMetricFamily(
            "webchat_abandoned", "What did not stop when it was told to.", labels=("kind",)
        )
        for kind in ABANDONED_KINDS:
            abandoned.add_metric((kind,), ABANDONED[kind])
        yield abandoned
