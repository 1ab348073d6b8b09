"""Observers: told of every event of every session, as it is published."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from .inference.events import (
    Event,
    EventSink,
    InferenceFinished,
    InferenceStarted,
    Origin,
    ProviderError,
)

logger = logging.getLogger(__name__)


class EventObserver(Protocol):
    def __call__(self, conv_id: str, event: Event, origin: Origin | None) -> None:
        """Told once the sink has taken the event. Never waits; what it raises costs nobody else.

        Called in the context of the work that publishes: what it sets there, in a context variable,
        holds for the model call that begins (`ModelCallStarted`) or the tool that runs
        (`ToolCallStarted`), and for nothing beside it.
        """


def log_inference(conv_id: str, event: Event, origin: Origin | None) -> None:
    """The EventObserver of the log: a line at the start and one at the end of each inference.

    What it failed of is not in it: that sentence may quote what was said.
    """
    match event:
        case InferenceStarted():
            logger.info(
                "inference started",
                extra={
                    "conv_id": conv_id,
                    "inference_id": event.inference_id,
                    "profile": event.profile,
                    "model": event.model,
                },
            )
        case InferenceFinished():
            failed = event.status in ("failed", "lost")
            logger.log(
                logging.WARNING if failed else logging.INFO,
                "inference %s",
                event.status,
                extra={
                    "conv_id": conv_id,
                    "inference_id": event.inference_id,
                    "model": event.model,
                    "stop_reason": event.stop_reason,
                    "duration_ms": event.duration_ms,
                    "input_tokens": event.usage.input_tokens if event.usage else None,
                    "output_tokens": event.usage.output_tokens if event.usage else None,
                },
            )
        case ProviderError(detail=detail):
            logger.debug("the model's service said: %s", detail)


class ObservedSink:
    """An EventSink that tells observers what passes through it."""

    def __init__(self, sink: EventSink, conv_id: str, observers: Sequence[EventObserver]) -> None:
        self._sink = sink
        self._conv_id = conv_id
        self._observers = tuple(observers)

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        self._sink.publish(event, origin)
        for observe in self._observers:
            try:
                observe(self._conv_id, event, origin)
            except Exception:
                logger.exception("an observer raised at %s", type(event).__name__)

    async def flush(self) -> None:
        await self._sink.flush()
