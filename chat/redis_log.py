"""The live log of one conversation in Redis: written by its owner, read by every process."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import msgspec
from redis.exceptions import RedisError

from cluster.leases import Lease, LeaseLost, Leases
from cluster.store import NOTHING, Batch, Extra, Page, RedisStore, Written
from sessions_app.inference.errors import Unavailable

from .frames import (
    Cursor,
    InferenceFinished,
    LlmDelta,
    StreamFrame,
    ThinkingDelta,
    body_of,
    decode_body,
)
from .log import Entry, Gap, GapReason, NowMs, Numbered, Window, wall_ms
from .timeline import Snapshot, Timeline, TimelineState

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1000
_DELTAS = (LlmDelta, ThinkingDelta)
TAIL = 512
RETRY_SECONDS = 0.25
SNAPSHOT_PARTS = 4
"""A snapshot is stored this often in a window, so that with the tail after it all is there."""


class RedisLogWriter:
    """What the owner of a conversation writes with: bound to one lease, and useless after it."""

    def __init__(self, log: RedisFrameLog, lease: Lease, *, extra: Callable[[], Extra]) -> None:
        self._log = log
        self._lease = lease
        self._extra = extra

    @property
    def conv_id(self) -> str:
        return self._log.conv_id

    @property
    def head(self) -> Cursor:
        return self._log.written

    def stream_ids(self) -> Callable[[int], str | None]:
        """Names the entries of one batch: their number, and what nobody else will draw."""
        drawn = secrets.randbits(48)
        return lambda seq: f"{seq}-{drawn}"

    async def append(self, batch: Sequence[Numbered]) -> bool:
        """Adds the batch whole, with the session's state. Raises LeaseLost: nothing was written."""
        # Taken before anything is awaited: it is the state that these very frames made. Text that
        # grows changes no state, and is most of what is ever written.
        only_text = bool(batch) and all(isinstance(frame, _DELTAS) for frame, _ in batch)
        extra = NOTHING if only_text else self._extra()
        if self._lease.lost is not None:
            raise LeaseLost(f"{self.conv_id} is not this process's any more")
        if batch or extra != NOTHING:
            await self._log.write(self._lease, batch, extra)
        return not only_text

    async def commit(self) -> None:
        """Writes the session's state where it has changed. Raises LeaseLost."""
        await self.append(())


class RedisFrameLog:
    """A FrameLog, read by every process; its owner writes it with a RedisLogWriter.

    `head`, `active_inference`, `queue_depth` and `kept` are as of the last read or append. What is
    awaited raises Unavailable while the store cannot be reached.
    """

    def __init__(
        self,
        conv_id: str,
        *,
        store: RedisStore,
        leases: Leases,
        window: Window,
        now_ms: NowMs = wall_ms,
    ) -> None:
        self.conv_id = conv_id
        self._store = store
        self._leases = leases
        self._window = window
        self._now_ms = now_ms
        self._head = Cursor(0, 0)
        self._active: str | None = None
        self._queued = 0
        self._kept = (0, 0)
        self._tail: deque[Entry] = deque(maxlen=TAIL)
        self._fold: _Fold | None = None
        self._folding = asyncio.Lock()

    @property
    def epoch(self) -> int:
        return self._head.epoch

    @property
    def head(self) -> Cursor:
        return self._head

    @property
    def written(self) -> Cursor:
        """Where the owner has written to; no answer that was overtaken on its way moves it."""
        return self._head if self._fold is None else self._fold.cursor

    @property
    def active_inference(self) -> str | None:
        return self._active

    @property
    def queue_depth(self) -> int:
        return self._queued

    @property
    def kept(self) -> tuple[int, int]:
        return self._kept

    async def refresh(self) -> None:
        """Brings `head` and what goes with it up to date."""
        await self._page(Cursor(0, 0), limit=0)

    async def level(self) -> Timeline:
        """The fold of the whole log, brought up to date. For the new owner, before it writes."""
        async with self._folding:
            # What is folded here may be from before another process wrote.
            fold, self._fold = self._fold, None
            await self.refresh()
            self._fold = fold
            return (await self._folded()).timeline

    async def write(self, lease: Lease, batch: Sequence[Numbered], extra: Extra) -> None:
        """For a RedisLogWriter."""
        async with self._folding:
            fold, self._fold = await self._own_fold(lease), None
            before = fold.cursor
            for frame, entry in batch:
                assert entry.seq == fold.timeline.version + 1, f"{entry.seq} does not follow"
                fold.take(frame, entry)
            snap = fold.snapshot_if_due(self._window)
            timeline = fold.timeline
            await self._leases.append(
                lease,
                Batch(
                    prev_seq=before.seq,
                    prev_id=before.stream_id or "",
                    active=timeline.active_inference or "",
                    queued=len(timeline.queue),
                    entries=[_written(entry) for _, entry in batch],
                    record=extra.record,
                    turns=extra.turns,
                    snap_seq=timeline.version,
                    snap=snap,
                    mail_done=extra.mail_done,
                ),
                now_ms=self._now_ms(),
            )
            self._fold = fold
            self._head = fold.cursor
            self._active, self._queued = timeline.active_inference, len(timeline.queue)
            self._tail.extend(entry for _, entry in batch)
            frames, size = self._kept
            self._kept = (
                min(self._window.frames, frames + len(batch)),
                min(self._window.bytes, size + sum(entry.size for _, entry in batch)),
            )

    async def read(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap:
        page = await self._page(after, limit=limit)
        if page.reason:
            return Gap(msgspec.convert(page.reason, GapReason))
        return [_entry(written) for written in page.entries]

    def read_now(self, after: Cursor, *, limit: int) -> Sequence[Entry] | Gap | None:
        """What this process wrote itself, as long as it is the owner; else the log is asked."""
        if self._leases.get(self.conv_id) is None:
            return None
        if after == self._head:
            return ()
        tail = self._tail
        if not tail or after.epoch != self._head.epoch or tail[-1].seq != self._head.seq:
            return None
        start = len(tail) - (self._head.seq - after.seq)
        # The place must be one that this process has written itself.
        if start < 1 or start > len(tail) or tail[start - 1].stream_id != after.stream_id:
            return None
        return tuple(islice(tail, start, start + limit))

    async def window(self, *, since_seq: int = 0) -> Sequence[Entry]:
        found = await reached(self._store.window(self.conv_id, since_seq=since_seq))
        return [_entry(written) for written in found]

    async def snapshot(self, *, since_version: int = 0) -> Snapshot:
        async with self._folding:
            fold = await self._folded()
            return fold.timeline.snapshot(
                self.conv_id, fold.cursor, since_version=since_version, now_ms=self._now_ms()
            )

    async def _page(self, after: Cursor, *, limit: int) -> Page:
        before = self._head
        page = await reached(
            self._store.read(
                self.conv_id,
                epoch=after.epoch,
                seq=after.seq,
                id=after.stream_id or "",
                limit=limit,
                now_ms=self._now_ms(),
            )
        )
        self._note(page, before)
        return page

    def _note(self, page: Page, before: Cursor) -> None:
        """Takes over what the store says of its head. `before` was ours when it was asked."""
        head = Cursor(page.epoch, page.head, page.head_id or None)
        if self._leases.get(self.conv_id) is None or self._fold is None:
            self._head = head
            self._active, self._queued = page.active or None, page.queued
        elif page.epoch == before.epoch and page.head < before.seq:
            # Not only overtaken: the store has forgotten what was there before it was asked.
            self._leases.roll_back(self.conv_id)
        self._kept = (page.kept_frames, page.kept_bytes)

    async def _own_fold(self, lease: Lease) -> _Fold:
        """The fold at the head, for its owner: it waits for a store that is away. LeaseLost."""
        while lease.lost is None:
            try:
                return await self._folded()
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
        raise LeaseLost(f"{self.conv_id} is not this process's any more")

    async def _folded(self) -> _Fold:
        """The fold at the log's head, from where it was, or else from the stored snapshot."""
        fold, self._fold = self._fold, None
        is_ours = self._leases.get(self.conv_id) is not None
        if fold is not None and is_ours and fold.cursor == self._head:
            self._fold = fold
            return fold
        if fold is not None:
            page = await self._page(fold.cursor, limit=PAGE)
            while not page.reason and page.entries:
                for written in page.entries:
                    fold.take_written(written)
                page = await self._page(fold.cursor, limit=PAGE)
            if not page.reason:
                self._fold = fold
                return fold
        # There is none yet, or the log was rewritten, or trimmed beyond this place.
        self._fold = fold = await self._stored_fold()
        return fold

    async def _stored_fold(self) -> _Fold:
        """The fold at the log's head, from the snapshot that the owner stored last."""
        before = self._head
        snapshot, page = await reached(self._store.fold(self.conv_id))
        self._note(page, before)
        if page.reason:
            raise Unavailable(f"the log of {self.conv_id} lacks what its snapshot does not cover")
        fold = _Fold.stored(snapshot, page.epoch)
        for written in page.entries:
            fold.take_written(written)
        return fold


class _Stored(msgspec.Struct, frozen=True):
    """A snapshot as it lies in the store. Fields may be added; what is not known is left out."""

    state: TimelineState
    stream_id: str


@dataclass(slots=True)
class _Fold:
    """A timeline with the proof of its place, and what came since it was stored."""

    timeline: Timeline
    cursor: Cursor
    stored_seq: int = 0
    weight: int = 0
    due: bool = False

    @classmethod
    def stored(cls, snapshot: bytes | None, epoch: int) -> _Fold:
        """As it was stored in an epoch; an empty one where none was."""
        if snapshot is None:
            return cls(Timeline(), Cursor(epoch, 0))
        stored = msgspec.json.decode(snapshot, type=_Stored)
        version = stored.state.version
        return cls(
            Timeline.of(stored.state), Cursor(epoch, version, stored.stream_id or None), version
        )

    def take(self, frame: StreamFrame, entry: Entry) -> None:
        self.timeline.fold(frame, seq=entry.seq, at_ms=entry.at_ms)
        self.cursor = Cursor(self.cursor.epoch, entry.seq, entry.stream_id)
        self.weight += entry.size
        self.due = self.due or isinstance(frame, InferenceFinished)

    def take_written(self, written: Written) -> None:
        entry = _entry(written)
        try:
            frame = decode_body(body_of(entry.text, entry.seq, entry.stream_id))
        except msgspec.ValidationError as error:
            # A newer server's: its clients know what it means, and the log keeps it as it is.
            logger.info("frame %s of %s is passed over: %s", entry.seq, entry.event, error)
            self.timeline.pass_over(entry.seq)
            self.cursor = Cursor(self.cursor.epoch, entry.seq, entry.stream_id)
            return
        self.take(frame, entry)

    def snapshot_if_due(self, window: Window) -> bytes | None:
        """The fold to be stored with the batch that made it; None where the last one will do."""
        frames = self.timeline.version - self.stored_seq
        if not (
            self.due
            or frames >= window.frames // SNAPSHOT_PARTS
            or self.weight >= window.bytes // SNAPSHOT_PARTS
        ):
            return None
        self.due, self.weight, self.stored_seq = False, 0, self.timeline.version
        return msgspec.json.encode(_Stored(self.timeline.state(), self.cursor.stream_id or ""))


async def reached(asked: Awaitable[T]) -> T:
    """The store's answer. Raises Unavailable where there is none."""
    try:
        return await asked
    except (RedisError, OSError) as error:
        logger.debug("the log's store cannot be reached: %s", error)
        raise Unavailable(
            "the conversations cannot be reached just now; try again in a few seconds"
        ) from None


def _written(entry: Entry) -> Written:
    assert entry.stream_id is not None
    return Written(entry.stream_id, entry.at_ms, entry.size, entry.event, entry.text)


def _entry(written: Written) -> Entry:
    return Entry(written.seq, written.at_ms, written.text, written.size, written.id, written.event)
