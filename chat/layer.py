"""The channel layer of one process."""

from __future__ import annotations

import time
from typing import Any

from channels.layers import InMemoryChannelLayer

CLEANED_EVERY = 10.0
"""Seconds. Messages are kept for a minute."""
NEVER = 100 * 365 * 86_400
"""Seconds, for who leaves a group by itself."""


class ProcessChannelLayer(InMemoryChannelLayer):
    """Looks for what is too old every ten seconds, and lets nobody's membership grow old.

    The layer of Channels goes through every channel and group whenever somebody sends or receives:
    at five thousand sockets, three quarters of what one more costs. It also forgets who is in a
    group for longer than a day, as a socket may be.
    """

    _cleaned = 0.0

    def __init__(self, *, group_expiry: int = NEVER, **options: Any) -> None:
        super().__init__(group_expiry=group_expiry, **options)

    def _clean_expired(self) -> None:
        now = time.monotonic()
        if now - self._cleaned >= CLEANED_EVERY:
            self._cleaned = now
            super()._clean_expired()  # type: ignore[misc] # the stubs leave it out
