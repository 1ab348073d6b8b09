"""Idempotency: one key, one request, one answer, for as long as it is remembered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from .inference.errors import KeyReused
from .values import Submitted


@dataclass(frozen=True, slots=True)
class _Remembered:
    request: str
    answer: Submitted
    at_ms: int


class IdempotencyKeys:
    """The answers given to each owner's keys. The oldest go beyond `limit`, all after `seconds`."""

    def __init__(self, *, limit: int, seconds: float, now_ms: Callable[[], int]) -> None:
        self._limit = limit
        self._age_ms = round(seconds * 1000)
        self._now_ms = now_ms
        self._answers: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()

    def answer(self, owner: str, key: str, request: str) -> Submitted | None:
        """What was answered to this key; None if new. Raises KeyReused for another request."""
        self._forget_old()
        remembered = self._answers.get((owner, key))
        if remembered is None:
            return None
        if remembered.request != request:
            raise KeyReused(
                "this idempotency key was used for another request; mint a new one for each prompt"
            )
        return remembered.answer

    def remember(self, owner: str, key: str, request: str, answer: Submitted) -> None:
        self._answers[owner, key] = _Remembered(request, answer, self._now_ms())
        while len(self._answers) > self._limit:
            self._answers.popitem(last=False)

    def forget(self, owner: str, key: str) -> None:
        self._answers.pop((owner, key), None)

    def transfer(self, old_owner: str, new_owner: str) -> None:
        """Gives the keys of one owner to another, who keeps its own where both used one."""
        for owner, key in tuple(self._answers):
            if owner == old_owner:
                remembered = self._answers.pop((owner, key))
                self._answers.setdefault((new_owner, key), remembered)

    def _forget_old(self) -> None:
        oldest = self._now_ms() - self._age_ms
        while self._answers:
            first = next(iter(self._answers))
            if self._answers[first].at_ms >= oldest:
                return
            del self._answers[first]


def request_hash(*parts: object) -> str:
    """Names a request by what the client gave."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
