"""What nobody may read, whoever says it: the secrets of the process an inference runs in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_hidden: ContextVar[tuple[str, ...]] = ContextVar("webchat_hidden", default=())


def hidden() -> tuple[str, ...]:
    """The values that are masked in what tools of the running inference say."""
    return _hidden.get()


@contextmanager
def hiding(values: Iterable[str]) -> Iterator[None]:
    """Within the block, and in tasks and threads started inside, these values are hidden."""
    token = _hidden.set(tuple(values))
    try:
        yield
    finally:
        _hidden.reset(token)
