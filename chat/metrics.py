"""The numbers of the transport for Prometheus. docs/telemetry.md says what each means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .counts import RESUME_RESULTS, CloseReason, DropReason
from .limits import LIMITS, Limits
from .streams import Streams
from .timeline import SnapshotReason

K = TypeVar("K", bound=str)

LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class StreamCollector(Collector):
    """Reads what the streams have counted, and what they hold, when somebody scrapes."""

    def __init__(self, streams: Streams, limits: Limits) -> None:
        self._streams = streams
        self._limits = limits

    def collect(self) -> Iterator[Metric]:
        counts, now = self._streams.counts, self._streams.statistics()
        yield CounterMetricFamily(
            "webchat_frames", "Frames appended to the logs.", value=counts.frames
        )
        yield CounterMetricFamily(
            "webchat_frame_bytes", "Bytes of frames appended to the logs.", value=counts.frame_bytes
        )
        yield CounterMetricFamily(
            "webchat_frames_sent", "Frames handed to sockets.", value=counts.frames_sent
        )
        yield GaugeMetricFamily("webchat_sockets", "Open sockets.", value=now.sockets)
        yield GaugeMetricFamily(
            "webchat_sockets_behind", "Sockets that read the log to catch up.", value=now.behind
        )
        yield GaugeMetricFamily(
            "webchat_outbox_frames", "Frames in all outboxes.", value=now.outbox_frames
        )
        yield GaugeMetricFamily(
            "webchat_outbox_frames_max",
            "Frames in the fullest outbox.",
            value=now.outbox_frames_max,
        )
        yield GaugeMetricFamily(
            "webchat_logs", "Conversations that have a log.", value=now.conversations
        )
        yield _by(
            "resumes", "Sockets that came with a cursor.", "result", counts.resumes, RESUME_RESULTS
        )
        yield _by(
            "snapshots",
            "Snapshots sent to sockets.",
            "reason",
            counts.snapshots,
            get_args(SnapshotReason),
        )
        yield _by(
            "socket_closes", "Sockets that ended.", "reason", counts.closes, get_args(CloseReason)
        )
        yield _by(
            "drops",
            "Batches, events and frames that did not go their way.",
            "reason",
            counts.drops,
            get_args(DropReason),
        )
        yield _by(
            "limit_refusals",
            "Prompts, sockets and messages refused by a limit.",
            "limit",
            self._limits.refusals,
            LIMITS,
        )


def _by(
    name: str, told: str, label: str, counted: Mapping[K, int], values: tuple[K, ...]
) -> Metric:
    """A counter that has each value of its closed label from the start."""
    family = CounterMetricFamily(f"webchat_{name}", told, labels=(label,))
    for value in values:
        family.add_metric((value,), counted.get(value, 0))
    return family
