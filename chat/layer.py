"""The channel layer of one process."""

from __future__ import annotations

import time

from channels.layers import InMemoryChannelLayer

CLEANED_EVERY = 10.0
"""Seconds. Messages are kept for a minute, memberships for a day."""


class ProcessChannelLayer(InMemoryChannelLayer):
    """Looks for what is too old every ten seconds.

    The layer of Channels goes through every channel and group whenever somebody sends or receives:
    at five thousand sockets, three quarters of what one more costs.
    """

    _cleaned = 0.0

    def _clean_expired(self) -> None:
        now = time.monotonic()
        if now - self._cleaned >= CLEANED_EVERY:
            self._cleaned = now
            super()._clean_expired()  # type: ignore[misc] # the stubs leave it out
