"""The one writer of a conversation: events in, numbered frames in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from typing import TypeAlias

import msgspec
from structlog.contextvars import bind_contextvars

from cluster.leases import LeaseLost
from sessions_app.inference.errors import StreamStalled
from sessions_app.inference.events import (
    Event,
    InferenceFinished,
    InferenceStarted,
    Origin,
    PromptTaken,
    QueueUpdated,
    SessionUpdated,
    TextDelta,
    ThinkingDelta,
)

from .app_kinds import AppKinds
from .bell import Bell
from .counts import StreamCounts
from .frames import encode_body, envelope, utf8_size
from .log import Entry, LogWriter, NowMs, Numbered, wall_ms
from .timeline import Timeline
from .translate import Translator

logger = logging.getLogger(__name__)

INBOX_MAX_CHARS = 16 * 1024 * 1024
INBOX_MAX_EVENTS = 100_000
GONE = "the conversation and its log are gone from this server"

ALWAYS_TAKEN = (PromptTaken, InferenceStarted, InferenceFinished, QueueUpdated, SessionUpdated)
"""What the session itself says: little, and each is true whether the log follows or not."""


_DELTAS = (TextDelta, ThinkingDelta)


_Published: TypeAlias = tuple[Event, Origin | None]


class StreamCoordinator:
    """Owns the numbering of one conversation and the task that does it.

    An `EventSink`: `publish` takes events without waiting; the task turns what has piled up into
    one batch. Adjacent deltas merge, each frame is numbered and encoded once, the batch is appended
    and readers are woken. A lone event is not held back for company.
    """

    def __init__(
        self,
        log: LogWriter,
        *,
        wake: Callable[[], None],
        counts: StreamCounts | None = None,
        kinds: AppKinds | None = None,
        now_ms: NowMs = wall_ms,
        monotonic_ms: NowMs = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        self._log = log
        self._wake = wake
        self._counts = counts or StreamCounts()
        self._now_ms = now_ms
        self._translator = Translator(log.conv_id, monotonic_ms=monotonic_ms, kinds=kinds)
        self._inbox: list[_Published] = []
        self._flushes: list[asyncio.Future[None]] = []
        self._chars = 0
        self._work = Bell()
        self._task: asyncio.Task[None] | None = None
        self._writing = False
        self._dropped = False

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        if self._dropped:
            self._counts.drops["gone"] += 1
            return
        size = len(event.text) if isinstance(event, _DELTAS) else 0
        if (
            self._chars + size > INBOX_MAX_CHARS or len(self._inbox) >= INBOX_MAX_EVENTS
        ) and not isinstance(event, ALWAYS_TAKEN):
            self._counts.drops["stalled"] += 1
            raise StreamStalled(
                f"{self._chars} characters in {len(self._inbox)} events wait to be logged; "
                "the log does not follow. Check the log's store, or publish larger pieces"
            )
        self._chars += size
        self._inbox.append((event, origin))
        self._begin()

    def resume(self, timeline: Timeline) -> None:
        """Goes on where another writer of the log ended. Before anything is published."""
        self._translator.resume(timeline)

    async def flush(self) -> None:
        if self._dropped:
            raise StreamStalled(GONE)
        done = asyncio.get_running_loop().create_future()
        self._flushes.append(done)
        self._begin()
        await done

    async def aclose(self) -> None:
        """Logs what was published, then ends the task. Publishing afterwards starts it again."""
        if self._task is None:
            return
        # A log that takes nothing has been told of; the task ends all the same.
        with suppress(Exception):
            await self.flush()
            # What was published while we waited is still to be logged.
            while self._inbox or self._flushes or self._writing:
                await self.flush()
        task, self._task = self._task, None
        task.cancel()
        await asyncio.wait({task})

    async def drop(self) -> None:
        """The log is gone, or another's: forgets what was not written, ends the task, for good."""
        self._dropped = True
        for flush in self._flushes:
            if not flush.done():
                flush.set_exception(StreamStalled(GONE))
        self._flushes.clear()
        self._inbox.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _begin(self) -> None:
        self._work.set()
        if self._task is None:
            self._start()

    def _start(self) -> None:
        # Who publishes first lends its context to nothing: the task outlives that request.
        context = Context()
        context.run(bind_contextvars, conv_id=self._log.conv_id)
        self._task = asyncio.create_task(
            self._run(), name=f"coordinator:{self._log.conv_id}", context=context
        )
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Whatever ended the task but `aclose`, what is published goes on being logged."""
        if task is not self._task:
            return
        self._task = None
        if not task.cancelled():
            logger.error(
                "the writer of %s ended; another goes on",
                self._log.conv_id,
                exc_info=task.exception(),
            )
        if self._inbox or self._flushes:
            self._start()

    async def _run(self) -> None:
        while not self._dropped:
            await self._work.wait()
            inbox, self._inbox, self._chars = self._inbox, [], 0
            flushes, self._flushes = self._flushes, []
            failed: Exception | None = None
            logged = settled = False
            self._writing = True
            batch = self._batch(inbox)
            try:
                if batch:
                    settled = await self._log.append(batch)
                    self._wake_readers()
                    self._counts.frames += len(batch)
                    self._counts.frame_bytes += sum([entry.size for _, entry in batch])
                if flushes and not settled:
                    await self._log.commit()
                logged = True
            except LeaseLost as error:
                # Whoever goes on with the conversation tells how it ended.
                logger.warning("%s frames were not written: %s", len(batch), error)
                self._counts.drops["gone"] += len(batch)
                failed = StreamStalled(GONE)
            except Exception as error:
                logger.exception("the log of %s took no frames", self._log.conv_id)
                self._counts.drops["log_failed"] += len(batch)
                failed = error
            finally:
                self._writing = False
                if flushes:
                    if not logged and failed is None:
                        failed = StreamStalled("the log's writer was ended as it wrote")
                    _answer(flushes, failed)

    def _wake_readers(self) -> None:
        """They look up by themselves too, so a failure here costs a tick and no frame."""
        try:
            self._wake()
        except Exception:
            logger.exception("the readers of %s could not be told of frames", self._log.conv_id)
            self._counts.drops["offer_failed"] += 1

    def _batch(self, published: Collection[_Published]) -> Sequence[Numbered]:
        seq, at_ms = self._log.head.seq, self._now_ms()
        stream_id = self._log.stream_ids()
        batch: list[Numbered] = []
        for event, origin in published if len(published) == 1 else _merged(published):
            try:
                if isinstance(event, InferenceFinished):
                    event = _sayable(event)
                frames = self._translator.translate(event, origin)
                told = [(frame, encode_body(frame)) for frame in frames]
            except Exception:
                # A bug in one event must not end the conversation; the rest goes on.
                logger.exception("event %s could not be made a frame", type(event).__name__)
                self._counts.drops["unwritable"] += 1
                continue
            name = type(event).__name__
            for frame, body in told:
                seq += 1
                id = stream_id(seq)
                text = envelope(body, seq, id)
                entry = Entry(seq, at_ms, text, utf8_size(text), id, name)
                batch.append(Numbered(frame, entry))
        return batch


def _answer(flushes: Iterable[asyncio.Future[None]], failed: Exception | None) -> None:
    for flush in flushes:
        if flush.done():
            continue
        if failed is None:
            flush.set_result(None)
        else:
            flush.set_exception(failed)


def _sayable(end: InferenceFinished) -> InferenceFinished:
    """The end of an inference must be told: what in it cannot be written is left out."""
    try:
        msgspec.json.encode(end)
    except Exception:
        logger.exception("the end of %s holds what cannot be written", end.inference_id)
        return replace(end, model="", stop_reason="error", error=None, usage=None)
    return end


def _merged(published: Iterable[_Published]) -> Iterator[tuple[Event, Origin | None]]:
    """The events in order, each run of deltas of one kind and origin as one."""
    kind: type[TextDelta] | type[ThinkingDelta] | None = None
    origin: Origin | None = None
    parts: list[str] = []
    for event, cause in published:
        if isinstance(event, _DELTAS) and isinstance(event.text, str):
            if kind is type(event) and origin is cause:
                parts.append(event.text)
                continue
            if kind is not None:
                yield kind("".join(parts)), origin
            kind, origin, parts = type(event), cause, [event.text]
            continue
        if kind is not None:
            yield kind("".join(parts)), origin
            kind = None
        yield event, cause
    if kind is not None:
        yield kind("".join(parts)), origin
