"""Reads what a scrape answers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, dict[tuple[str, ...], float]]


def scraped(metrics: CollectorRegistry | str) -> Samples:
    """From a sample's name to its values, by those of its labels in the order of their names."""
    text = metrics if isinstance(metrics, str) else generate_latest(metrics).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found
