"""What did not stop when it was told to, and still runs where nobody waits for it."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeAlias, get_args

AbandonedKind: TypeAlias = Literal["engine", "tool", "thread"]
ABANDONED_KINDS: tuple[AbandonedKind, ...] = get_args(AbandonedKind)

ABANDONED: Counter[AbandonedKind] = Counter()
"""How many there were in this process. Written on the event loop alone."""
