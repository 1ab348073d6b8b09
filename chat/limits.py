"""Limits: how much one person, one address and this process may ask for. PROTOCOL §8.

Rates of prompts are kept by the `limits` library. A socket's own bucket of messages is kept here:
it is gone with its socket, and its refusal must cost less than what it refuses.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Literal, TypeAlias, get_args

import msgspec
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from .errors import RateLimited, TooManySockets

LimitName: TypeAlias = Literal[
    "queue",
    "prompts_user",
    "prompts_address",
    "sockets_user",
    "sockets_address",
    "sockets_process",
    "messages",
]
LIMITS: tuple[LimitName, ...] = get_args(LimitName)

PONGS_FACTOR = 50
"""Pongs are asked for, so a socket may send this many times as many of them as of the rest."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the settings. Prompts are per minute, messages per ten seconds."""

    prompts_user: int = 60
    prompts_address: int = 600
    sockets_user: int = 20
    sockets_address: int = 200
    sockets_process: int = 10_000
    messages: int = 20
    messages_burst: int = 40


class Bucket:
    """Holds `burst` messages, and gets `rate` back in a second."""

    def __init__(
        self, rate: float, burst: int, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._left = float(burst)
        self._at = now()

    def take(self) -> bool:
        """Whether one more message is within the bound."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Limits:
    """Counts for every owner and address of this process. Belongs to one event loop.

    `refusals` says how often each limit was met.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.refusals: Counter[LimitName] = Counter()
        self._prompts = MovingWindowRateLimiter(MemoryStorage())
        self._sockets: Counter[tuple[str, str]] = Counter()

    def take_prompt(self, owner: str, address: str) -> Awaitable[None] | None:
        """Counts a new prompt. Raises RateLimited, and then counts nothing.

        What it returns, where it returns something, is to be awaited for that.
        """
        by_limit = self._prompt_limits(owner, address)
        for name, bound, who in by_limit:
            if not self._prompts.test(RateLimitItemPerMinute(bound), name, who):
                stats = self._prompts.get_window_stats(RateLimitItemPerMinute(bound), name, who)
                raise self._limited(name, bound, max(1, ceil(stats.reset_time - time.time())))
        for name, bound, who in by_limit:
            self._prompts.hit(RateLimitItemPerMinute(bound), name, who)
        return None

    def _prompt_limits(self, owner: str, address: str) -> Sequence[tuple[LimitName, int, str]]:
        return (
            ("prompts_user", self.bounds.prompts_user, owner),
            ("prompts_address", self.bounds.prompts_address, address),
        )

    def _limited(self, name: LimitName, bound: int, retry_after: int) -> RateLimited:
        self.refusals[name] += 1
        return RateLimited(
            f"{bound} new prompts a minute are taken from one "
            f"{'person' if name == 'prompts_user' else 'address'}, and as many were sent; "
            "try again in a moment",
            retry_after=retry_after,
        )

    def enter(self, owner: str, address: str) -> None:
        """Counts a socket until it leaves. Raises TooManySockets, and then counts nothing."""
        bounds = self.bounds
        by_limit: list[tuple[LimitName, int, str, str]] = [
            ("sockets_process", bounds.sockets_process, "", "this server"),
            ("sockets_user", bounds.sockets_user, owner, "one person"),
            ("sockets_address", bounds.sockets_address, address, "one address"),
        ]
        for name, bound, who, told in by_limit:
            if self._open(name, who) >= bound:
                self.refusals[name] += 1
                raise TooManySockets(
                    f"{bound} sockets are open for {told}, which is the most; "
                    "close one, for instance another tab",
                    everybody=name == "sockets_process",
                )
        for name, _, who, _ in by_limit:
            self._sockets[name, who] += 1

    def _open(self, name: LimitName, who: str) -> int:
        return self._sockets[name, who]

    def leave(self, owner: str, address: str) -> None:
        """Ends what `enter` counted."""
        places = (("sockets_process", ""), ("sockets_user", owner), ("sockets_address", address))
        for place in places:
            self._sockets[place] -= 1
            if not self._sockets[place]:
                del self._sockets[place]

    def bucket(self) -> Bucket:
        """The messages a new socket may send."""
        return Bucket(self.bounds.messages / 10, self.bounds.messages_burst)

    def pong_bucket(self) -> Bucket:
        """The pongs a new socket may send."""
        rate = self.bounds.messages / 10 * PONGS_FACTOR
        return Bucket(rate, self.bounds.messages_burst * PONGS_FACTOR)
