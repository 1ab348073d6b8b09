"""The numbers of what this process shares, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from .health import Health
from .leases import Leases
from .store import Refusal


class ClusterCollector(Collector):
    """Reads them when somebody asks."""

    def __init__(self, health: Health, leases: Leases) -> None:
        self._health = health
        self._leases = leases

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "webchat_redis_up", "Whether Redis answers this process.", value=self._health.reached
        )
        yield GaugeMetricFamily(
            "webchat_leases", "Conversations that this process owns.", value=len(self._leases)
        )
        losses = CounterMetricFamily(
            "webchat_lease_losses", "Leases that ended with work left.", labels=("reason",)
        )
        for reason in get_args(Refusal):
            losses.add_metric((reason,), self._leases.losses[reason])
        yield losses
