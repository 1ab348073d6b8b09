"""Composition: settings, addresses, and the one place that wires sessions to transport."""
