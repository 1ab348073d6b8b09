"""Python's garbage collector, set for a process that serves."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
"""New objects until the youngest are looked through: about ten sockets' worth."""


def settle() -> None:
    """Has the collector leave alone what was made until now, and look less often at the rest.

    A server's modules live as long as it does, and looking through them all holds every answer up
    for some 70 ms. As Python sets it, more than half of what a new socket costs is the collector's.
    """
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, middle, old)


def let_go() -> None:
    """Has a process that ends leave what it holds to the system.

    Python looks through all of it once more at its end: seconds, where thousands of sockets were.
    """
    gc.freeze()
