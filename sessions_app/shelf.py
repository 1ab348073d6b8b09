"""Shelf: the conversations that nobody uses, and how they come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from .history import retold
from .inference.events import EventSink
from .inference.tools import ToolRegistry
from .store import ConversationStore, StoredConversation, TurnStore
from .transcript import masked

logger = logging.getLogger(__name__)


class SessionStreams(Protocol):
    """What sessions ask of whoever carries their events."""

    def sink(self, conv_id: str) -> EventSink:
        """Where the conversation's events go."""

    def watched(self, conv_id: str) -> bool:
        """Whether anybody follows the conversation now."""

    def size(self, conv_id: str) -> int:
        """Bytes that the conversation's log takes."""

    async def unload(self, conv_id: str) -> None:
        """Ends the conversation's tasks; its log stays."""

    def forget(self, conv_id: str) -> None:
        """The conversation is gone: its log goes, and who follows it is told."""


class Shelf:
    """Unloaded conversations in memory, and the way to those that only the app has kept.

    Owns the tasks that recall these, and that end the streams of what is unloaded. A conversation
    is put here, and taken away, in one step. `is_live` tells which ones are not for the shelf.
    """

    def __init__(
        self,
        store: ConversationStore,
        *,
        streams: SessionStreams,
        tools: ToolRegistry,
        turn_store: TurnStore | None,
        is_live: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._streams = streams
        self._tools = tools
        self._turn_store = turn_store
        self._is_live = is_live
        self._recalling: dict[str, asyncio.Task[None]] = {}
        self._unloading: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[StoredConversation]:
        return iter(self._store)

    @property
    def recalls(self) -> bool:
        """Whether there may be conversations that only the app has kept."""
        return self._turn_store is not None

    def get(self, conv_id: str) -> StoredConversation | None:
        """The conversation, if it is in memory."""
        return self._store.get(conv_id)

    async def find(self, conv_id: str) -> StoredConversation | None:
        """The conversation, recalled first if only the app has it."""
        if self._turn_store is not None and self._store.get(conv_id) is None:
            recalling = self._recalling.get(conv_id)
            if recalling is None:
                recalling = self._recalling[conv_id] = asyncio.create_task(
                    self._recall(conv_id, self._turn_store), name=f"recall:{conv_id}"
                )
                recalling.add_done_callback(lambda task: self._recalled(conv_id, task))
            # Who asked may give up; the others still wait for it.
            await asyncio.shield(recalling)
        return self._store.get(conv_id)

    def put(self, conversation: StoredConversation) -> None:
        """Keeps a conversation that is live no more; its stream's tasks end after this."""
        self._store.put(conversation)
        conv_id = conversation.conv_id
        task = asyncio.create_task(self._unload(conv_id), name=f"unload:{conv_id}")
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    def remove(self, conv_id: str) -> None:
        """The conversation is live again from here on."""
        self._store.remove(conv_id)

    async def settle(self) -> None:
        """Returns when the tasks of all that was put here have ended."""
        if self._unloading:
            await asyncio.wait(tuple(self._unloading))

    def sweep(self) -> None:
        """Forgets what is too old, and what is too much."""
        self._store.sweep()

    async def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        """Gives every conversation of one owner to the other, the app's too; returns their ids.

        Those in memory before anything is waited for.
        """
        given = self._store.transfer(old_owner, new_owner)
        if self._turn_store is None:
            return given
        try:
            await self._turn_store.transfer(old_owner, new_owner)
        except Exception:
            # Nobody is kept from signing in by it.
            logger.exception("the conversations kept of %s could not be given on", old_owner)
        # What is recalled meanwhile may have the old owner still.
        if self._recalling:
            await asyncio.wait(tuple(self._recalling.values()))
        return given + self._store.transfer(old_owner, new_owner)

    def stop_recalling(self) -> tuple[asyncio.Task[None], ...]:
        """Cancels what recalls, which then is to be waited for; who asked for it is told."""
        recalling = tuple(self._recalling.values())
        for task in recalling:
            task.cancel()
        return recalling

    async def _recall(self, conv_id: str, turn_store: TurnStore) -> None:
        """Asks the app for a conversation, and writes into its log what was said in it."""
        stored = await turn_store.load(conv_id)
        if stored is None or self._is_live(conv_id):
            return
        sink = self._streams.sink(conv_id)
        try:
            for origin, events in retold(masked(stored.turns, self._tools), profile=stored.profile):
                for event in events:
                    sink.publish(event, origin)
                await sink.flush()
        except BaseException:
            # Half a history would be told twice the next time.
            self._streams.forget(conv_id)
            raise
        # From here on it is there, whatever becomes of the rest: it must not be told again.
        self._store.put(stored)
        await self._unload(conv_id)

    def _recalled(self, conv_id: str, task: asyncio.Task[None]) -> None:
        del self._recalling[conv_id]
        if not task.cancelled():
            task.exception()  # whoever waited has been told

    async def _unload(self, conv_id: str) -> None:
        try:
            await self._streams.unload(conv_id)
        except Exception:
            logger.exception("the stream of %s could not be unloaded", conv_id)
