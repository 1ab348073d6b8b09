"""Who goes next, decided by a test: a loop that calls what is ready in any order.

    every_order(story, delays=2)            # all in which two ready calls at most are passed over
    every_hold(story, calls=9)              # at each place one is held back until 9 others went
    some_orders(story, number=200)          # thrown by a dice that falls the same each time
    in_order(story, choices)                # one, as Hypothesis drew it

asyncio calls what is ready first come, first served. Here each call is a choice: whoever is ready,
a task at any of its awaits, may be passed over. A choice of 0 is asyncio's own; where the choices
end, all goes on in that order, so that nobody is passed over for ever. `story` is what it is in
`tests.awaits`, and time is virtual.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tests.awaits import AwaitLoop, Hold, Story, Throw, run_on

T = TypeVar("T")

LONGEST_ORDER = 200_000
"""Calls after which a story goes in a circle."""


class Broken(AssertionError):
    """The law does not hold in an order, which the message names."""


def in_order(story: Story[T], choices: Sequence[int]) -> T:
    """Plays the story with the first choices as told; each is taken modulo what there is."""
    return run_on(ScheduledLoop(_Order(dict(enumerate(choices)))), story)


def every_order(story: Callable[[], Story[Any]], *, delays: int) -> int:
    """Plays a new story in each order in which so many calls at most were passed over.

    Returns how many there were. Raises Broken at the first in which it fails.
    """
    count = 0
    left: list[dict[int, int]] = [{}]
    while left:
        choices = left.pop()
        count += 1
        widths = _played(story(), choices)
        begin = max(choices, default=-1) + 1
        most = delays - sum(choices.values())
        left.extend(
            {**choices, place: choice}
            for place in range(begin, len(widths))
            for choice in range(1, min(most + 1, widths[place]))
        )
    return count


def every_hold(story: Callable[[], Story[Any]], *, calls: int) -> int:
    """Plays a new story once for each call: it is held back there until so many others went.

    Returns how many there were. Raises Broken at the first in which it fails.
    """
    places = len(_played(story(), {}))
    for place in range(places):
        _played(story(), dict.fromkeys(range(place, place + calls), 1))
    return places


def some_orders(
    story: Callable[[], Story[Any]], *, number: int, seed: int = 0, length: int = 400
) -> int:
    """Plays a new story in so many orders. Raises Broken at the first in which it fails."""
    dice = random.Random(seed)
    for _ in range(number):
        _played(story(), dict(enumerate(dice.randbytes(dice.randrange(length)))))
    return number


def _played(story: Story[Any], choices: Mapping[int, int]) -> Sequence[int]:
    order = _Order(choices)
    try:
        run_on(ScheduledLoop(order), story)
    except Exception as error:
        told = list(choices.items())
        raise Broken(f"{type(error).__name__}: {error}; in the order {told}") from error
    return order.widths


def at_every_step(check: Callable[[], None]) -> None:
    """Has the running loop call `check` before each step of whoever goes next."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ScheduledLoop)
    loop.order.check = check


def in_its_own_order() -> None:
    """From here on the running loop goes as asyncio does: what follows is not what is proved."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ScheduledLoop)
    loop.order.ended = True


class _Order:
    """Chooses as told. `widths`: between how many there was a choice, at each place."""

    def __init__(self, choices: Mapping[int, int]) -> None:
        self.widths: list[int] = []
        self.ended = False
        self.check: Callable[[], None] | None = None
        self._choices = choices

    def next(self, ready: int) -> int:
        if self.check is not None:
            check, self.check = self.check, None
            check()
            self.check = check
        if self.ended:
            return 0
        place = len(self.widths)
        assert place != LONGEST_ORDER, "the story goes in a circle"
        self.widths.append(ready)
        return self._choices.get(place, 0) % ready


class ScheduledLoop(AwaitLoop):
    """A loop in virtual time that asks `order` which of the ready calls comes next."""

    def __init__(self, order: _Order) -> None:
        super().__init__(lambda moment: None)
        self.order = order
        self._ready = _Ready(order)

    def stopped(self, watched: Any, *, begun: bool) -> Throw | Hold | None:
        return None


class _Ready(deque[asyncio.Handle]):
    """asyncio's row of what is ready, of which it takes the left one."""

    def __init__(self, order: _Order) -> None:
        super().__init__()
        self._order = order

    def popleft(self) -> asyncio.Handle:
        place = self._order.next(len(self))
        self.rotate(-place)
        handle = super().popleft()
        self.rotate(place)
        return handle
