"""ConversationStore: what is kept of a conversation while nobody uses it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from .inference.turns import Turn
from .values import SessionInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConversation:
    """What a session is made of again. The owner is part of it: an id alone inherits nothing."""

    conv_id: str
    owner: str
    profile: str
    title: str
    created_ms: int
    last_activity_ms: int
    turns: tuple[Turn, ...] = ()
    step_mode: bool | None = None  # None: as the profile has it

    def info(self) -> SessionInfo:
        """The session that it is while nobody uses it."""
        return SessionInfo(
            conv_id=self.conv_id,
            owner=self.owner,
            title=self.title,
            profile=self.profile,
            running=False,
            paused=False,
            queue_depth=0,
            step_mode=bool(self.step_mode),
            created_ms=self.created_ms,
            last_activity_ms=self.last_activity_ms,
        )


class TurnStore(Protocol):
    """Where an app keeps conversations beyond the process. Called in the event loop."""

    async def load(self, conv_id: str) -> StoredConversation | None:
        """The conversation with its owner; None where there is none.

        Asked when an id is not in memory, also for an id that nobody has used yet. What it raises
        fails the request that asked.
        """

    async def transfer(self, old_owner: str, new_owner: str) -> None:
        """Gives every conversation of one owner to the other: a visitor has signed in."""


TurnPersister: TypeAlias = Callable[[StoredConversation], Awaitable[None]]
"""Told the conversation after each inference, before the next one starts.

`turns` then holds one turn: the last, which has every block of the conversation, and its outcome.
Declared secrets are masked in it. What it raises is logged, and costs the conversation nothing. One
that takes longer than PERSIST_SECONDS is cancelled.
"""

PERSIST_SECONDS = 30.0


async def unpersisted(conversation: StoredConversation) -> None:
    """The TurnPersister that keeps nothing."""


class ConversationStore:
    """Unloaded conversations in memory, least recently used first to go.

    `size_of` tells the bytes a conversation takes with its log; `forget` is told each id that left.
    """

    def __init__(
        self,
        *,
        ttl_seconds: float,
        memory_bytes: int,
        now_ms: Callable[[], int],
        size_of: Callable[[str], int],
        forget: Callable[[str], None],
    ) -> None:
        self._ttl_ms = round(ttl_seconds * 1000)
        self._memory_bytes = memory_bytes
        self._now_ms = now_ms
        self._size_of = size_of
        self._forget = forget
        self._stored: OrderedDict[str, StoredConversation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[StoredConversation]:
        return iter(tuple(self._stored.values()))

    def get(self, conv_id: str) -> StoredConversation | None:
        return self._stored.get(conv_id)

    def put(self, conversation: StoredConversation) -> None:
        """Keeps the conversation as the most recently used."""
        self._stored[conversation.conv_id] = conversation
        self._stored.move_to_end(conversation.conv_id)

    def remove(self, conv_id: str) -> None:
        """The conversation is live again from here on."""
        del self._stored[conv_id]

    def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        """Gives every conversation of one owner to the other; returns their ids."""
        moved = [kept for kept in self if kept.owner == old_owner]
        for kept in moved:
            self._stored[kept.conv_id] = replace(kept, owner=new_owner)
        return tuple(kept.conv_id for kept in moved)

    def sweep(self) -> None:
        """Forgets what is too old, then the least recently used while too much memory is taken."""
        oldest = self._now_ms() - self._ttl_ms
        for conversation in self:
            if conversation.last_activity_ms < oldest:
                self._drop(conversation.conv_id)
        sizes = {id: self._size_of(id) + _text_size(c) for id, c in self._stored.items()}
        taken = sum(sizes.values())
        for conv_id in tuple(self._stored):
            if taken <= self._memory_bytes:
                return
            taken -= sizes[conv_id]
            self._drop(conv_id)

    def _drop(self, conv_id: str) -> None:
        del self._stored[conv_id]
        self._forget(conv_id)


def _text_size(conversation: StoredConversation) -> int:
    """About the bytes of a conversation's text; the last turn shares the blocks of all others."""
    if not conversation.turns:
        return 0
    return sum(len(getattr(block, "text", "")) for block in conversation.turns[-1].blocks)
