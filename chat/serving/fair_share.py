"""How much of the event loop, and of time, one client may take."""

from __future__ import annotations

TURN_SECONDS = 0.002
"""What reading frames may take in one go before the socket has to rest."""
REST_FACTOR = 9
"""A rest lasts so many times as long as the turn before it: a flood gets a tenth of the loop."""
MOST_WAITING = 32
"""Messages that wait for the application before no more are read."""
HEAD_SECONDS = 10.0
"""For a request's head: from the connection's begin, or from its first byte on one that is kept."""
CLOSE_SECONDS = 1.0
"""How long a client may take to answer that its socket is closed."""


def rest_after(seconds: float) -> float:
    """How long a socket rests after reading for so long; 0 where it need not."""
    return seconds * REST_FACTOR if seconds >= TURN_SECONDS else 0.0
