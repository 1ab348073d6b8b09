"""The streams of this process: for each conversation its log, its writer and its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from sessions_app.values import Shown

from .app_kinds import AppKinds
from .coordinator import StreamCoordinator
from .counts import StreamCounts, StreamStatistics
from .follower import Pace, StreamFollower
from .log import (
    Entry,
    Epochs,
    FrameLog,
    LogWriter,
    MemoryFrameLog,
    NowMs,
    Window,
    wall_ms,
)
from .pool import CLOSE_ENDED, CLOSE_RESTARTING, Connection
from .timeline import Snapshot, Timeline

LEAVE_SECONDS = 3.0
GIVE_UP_SECONDS = 0.5


class Logs(Protocol):
    """Where the logs are, and how one process tells the others that one has grown."""

    def log(self, conv_id: str) -> FrameLog:
        """The conversation's log, for reading."""

    def writer(self, log: FrameLog) -> LogWriter:
        """What to write that log with. Only for the conversation's owner."""

    @property
    def are_here(self) -> bool:
        """Whether what this process forgets of a log is gone."""

    def grew(self, conv_id: str) -> None:
        """This process has written to the log."""

    def follow(self, conv_id: str) -> None:
        """From here on this process wants to be woken when another writes to the log."""

    def unfollow(self, conv_id: str) -> None:
        """The opposite of `follow`."""

    async def heads(self, conv_ids: Sequence[str]) -> Mapping[str, int]:
        """The last `seq` of logs that are not here."""


class MemoryLogs:
    """The logs of a process that shares none."""

    def __init__(self, *, window: Window | None = None, now_ms: NowMs = wall_ms) -> None:
        self._window = window or Window()
        self._now_ms = now_ms
        self._epochs = Epochs(now_ms=now_ms)

    def log(self, conv_id: str) -> MemoryFrameLog:
        return MemoryFrameLog(
            conv_id, epoch=self._epochs.next(), window=self._window, now_ms=self._now_ms
        )

    def writer(self, log: FrameLog) -> LogWriter:
        assert isinstance(log, MemoryFrameLog)
        return log

    @property
    def are_here(self) -> bool:
        return True

    async def heads(self, conv_ids: Sequence[str]) -> Mapping[str, int]:
        return {}

    def grew(self, conv_id: str) -> None:
        pass

    def follow(self, conv_id: str) -> None:
        pass

    def unfollow(self, conv_id: str) -> None:
        pass


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation's stream at one moment: its log, and who follows it.

    `frames` and `bytes` are those in the log's window. `cursor` stands at its head.
    """

    cursor: str = ""
    epoch: int = 0
    head_seq: int = 0
    sockets: int = 0
    frames: int = 0
    bytes: int = 0


def together(one: StreamInfo, other: StreamInfo | None) -> StreamInfo:
    """One conversation at two processes: the sockets of both, the log as the later one saw it."""
    if other is None:
        return one
    latest = max(one, other, key=lambda info: (info.epoch, info.head_seq))
    return msgspec.structs.replace(latest, sockets=one.sockets + other.sockets)


class _Stream:
    """A conversation's log in this process; its writer too where this process writes it."""

    def __init__(self, log: FrameLog) -> None:
        self.log = log
        self.coordinator: StreamCoordinator | None = None
        self.follower: StreamFollower | None = None

    async def end(self) -> None:
        """Ends the tasks of a log that is gone."""
        if self.coordinator is not None:
            await self.coordinator.drop()
        if self.follower is not None:
            await self.follower.aclose()


def _info(stream: _Stream) -> StreamInfo:
    frames, size = stream.log.kept
    return StreamInfo(
        cursor=str(stream.log.head),
        epoch=stream.log.epoch,
        head_seq=stream.log.head.seq,
        sockets=0 if stream.follower is None else len(stream.follower.pool),
        frames=frames,
        bytes=size,
    )


class Streams:
    """Owns every coordinator and follower of the process. Belongs to one event loop."""

    def __init__(
        self,
        *,
        window: Window | None = None,
        logs: Logs | None = None,
        pace: Pace | None = None,
        kinds: AppKinds | None = None,
        now_ms: NowMs = wall_ms,
    ) -> None:
        self.kinds = kinds or AppKinds()
        self._logs = logs or MemoryLogs(window=window, now_ms=now_ms)
        self._pace = pace or Pace()
        self._now_ms = now_ms
        self.counts = StreamCounts()
        self._streams: dict[str, _Stream] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def sink(self, conv_id: str) -> StreamCoordinator:
        """The conversation's one writer. Only for its owner."""
        stream = self._stream(conv_id)
        if stream.coordinator is None:
            self._begin_writing(stream)
        assert stream.coordinator is not None
        return stream.coordinator

    async def adopt(self, conv_id: str) -> Timeline:
        """Makes this process the log's writer, going on where another ended; its fold so far."""
        stream = self._stream(conv_id)
        timeline = await stream.log.level()
        self._begin_writing(stream)
        assert stream.coordinator is not None
        stream.coordinator.resume(timeline)
        return timeline

    async def shown(self, conv_id: str, inference_id: str) -> Sequence[Shown]:
        """What people are shown of the last inference, in order of its first appearance."""
        entities = (await self.log(conv_id).level()).entities()
        began = next((e.created_seq for e in entities if e.id == inference_id), 0)
        return [Shown(e.kind, e.id, e.props) for e in entities if e.created_seq > began]

    async def renounce(self, conv_id: str) -> None:
        """This process writes that log no more. What was not written yet is forgotten."""
        stream = self._streams.get(conv_id)
        if stream is not None and stream.coordinator is not None:
            coordinator, stream.coordinator = stream.coordinator, None
            self._forget_unused(stream)
            await coordinator.drop()

    def wake(self, conv_id: str) -> None:
        """Says that another process may have written to the log."""
        stream = self._streams.get(conv_id)
        if stream is not None and stream.follower is not None:
            stream.follower.wake()

    async def refresh(self, conv_id: str) -> None:
        """Brings up to date what is known of a log that other processes may write."""
        await self._stream(conv_id).log.refresh()

    def log(self, conv_id: str) -> FrameLog:
        """The log, to look at. One that lies elsewhere is not remembered for it."""
        if conv_id in self._streams or self._logs.are_here:
            return self._stream(conv_id).log
        return self._logs.log(conv_id)

    def follower(self, conv_id: str) -> StreamFollower:
        """The conversation's reader in this process, started when it is not running."""
        stream = self._stream(conv_id)
        if stream.follower is None:
            stream.follower = StreamFollower(
                stream.log,
                pace=self._pace,
                on_stop=self._stopped,
                counts=self.counts,
                now_ms=self._now_ms,
            )
            self._logs.follow(conv_id)
        return stream.follower

    async def snapshot(self, conv_id: str, *, since_version: int = 0) -> Snapshot:
        """The fold of the conversation's frames at its head."""
        return await self.log(conv_id).snapshot(since_version=since_version)

    def head_seq(self, conv_id: str) -> int:
        """The last `seq` of the log as it is known here; 0 where there is none."""
        stream = self._streams.get(conv_id)
        return 0 if stream is None else stream.log.head.seq

    async def heads(self, conv_ids: Sequence[str]) -> Mapping[str, int]:
        """The last `seq` of each log; 0 where there is none."""
        found = dict(await self._logs.heads(conv_ids))
        for conv_id in conv_ids:
            found.setdefault(conv_id, self.head_seq(conv_id))
        return found

    def info(self, conv_id: str) -> StreamInfo:
        """The conversation's stream as it is known here; all zero where there is none."""
        stream = self._streams.get(conv_id)
        return StreamInfo() if stream is None else _info(stream)

    async def look(self, conv_id: str) -> StreamInfo:
        """The conversation's stream as it is, with the sockets of this process."""
        if self._logs.are_here:
            return self.info(conv_id)
        stream = self._streams.get(conv_id) or _Stream(self._logs.log(conv_id))
        await stream.log.refresh()
        return _info(stream)

    def infos(self) -> Mapping[str, StreamInfo]:
        """The streams that somebody follows or writes here."""
        return {
            conv_id: _info(stream)
            for conv_id, stream in self._streams.items()
            if stream.follower is not None or stream.coordinator is not None
        }

    async def window(self, conv_id: str, *, since_seq: int = 0) -> Sequence[Entry]:
        """The frames that are kept of those after `since_seq`, oldest first."""
        if conv_id not in self._streams and self._logs.are_here:
            return ()
        return await self.log(conv_id).window(since_seq=since_seq)

    def connections(self) -> tuple[Connection, ...]:
        """Every socket of this process."""
        return tuple(
            connection
            for stream in self._streams.values()
            if stream.follower is not None
            for connection in stream.follower.pool
        )

    def statistics(self) -> StreamStatistics:
        connections = self.connections()
        depths = [connection.depth for connection in connections]
        return StreamStatistics(
            conversations=len(self._streams),
            sockets=len(connections),
            behind=sum(not connection.live for connection in connections),
            outbox_frames=sum(depths),
            outbox_frames_max=max(depths, default=0),
        )

    def watched(self, conv_id: str) -> bool:
        """Whether a socket of this process follows the conversation."""
        stream = self._streams.get(conv_id)
        return stream is not None and stream.follower is not None and len(stream.follower.pool) > 0

    def size(self, conv_id: str) -> int:
        """Bytes of frames in the conversation's window."""
        stream = self._streams.get(conv_id)
        return 0 if stream is None else stream.log.kept[1]

    async def unload(self, conv_id: str) -> None:
        """Ends the conversation's tasks; its log stays, and tasks come back at need."""
        stream = self._streams.get(conv_id)
        if stream is None:
            return
        if stream.coordinator is not None:
            await stream.coordinator.aclose()
        if stream.follower is not None and not len(stream.follower.pool):
            follower, stream.follower = stream.follower, None
            self._logs.unfollow(conv_id)
            self._forget_unused(stream)
            await follower.aclose()

    def forget(self, conv_id: str) -> None:
        """Drops the conversation with its log. Nobody watches it, or is closed with 4509."""
        stream = self._streams.pop(conv_id, None)
        if stream is None:
            return
        if stream.follower is not None:
            self._logs.unfollow(conv_id)
            for connection in stream.follower.pool:
                connection.close(CLOSE_ENDED)
        ending = asyncio.create_task(stream.end(), name=f"forget:{conv_id}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    @property
    def following(self) -> tuple[str, ...]:
        """The conversations that have a running follower."""
        return tuple(id for id, stream in self._streams.items() if stream.follower is not None)

    async def aclose(self) -> None:
        """Logs what was published, sends every socket that and a 1012, and ends every task.

        A socket that does not take it within `LEAVE_SECONDS`, or whose log is away, gets the 1012.
        """
        for stream in tuple(self._streams.values()):
            if stream.coordinator is not None:
                await stream.coordinator.aclose()
        for connection in self.connections():
            connection.leave(CLOSE_RESTARTING)
        await self._emptied(LEAVE_SECONDS)
        for connection in self.connections():
            connection.give_up(CLOSE_RESTARTING)
        await self._emptied(GIVE_UP_SECONDS)
        for stream in tuple(self._streams.values()):
            if stream.follower is not None:
                await stream.follower.aclose()
                stream.follower = None
        if self._ending:
            await asyncio.wait(tuple(self._ending))

    async def _emptied(self, seconds: float) -> None:
        """Returns once every socket has left, and after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for stream in tuple(self._streams.values()):
                    if stream.follower is not None:
                        await stream.follower.pool.emptied()

    def _stream(self, conv_id: str) -> _Stream:
        stream = self._streams.get(conv_id)
        if stream is None:
            stream = self._streams[conv_id] = _Stream(self._logs.log(conv_id))
        return stream

    def _begin_writing(self, stream: _Stream) -> None:
        conv_id = stream.log.conv_id

        def wake() -> None:
            if stream.follower is not None:
                stream.follower.wake()
            self._logs.grew(conv_id)

        stream.coordinator = StreamCoordinator(
            self._logs.writer(stream.log),
            wake=wake,
            kinds=self.kinds,
            counts=self.counts,
            now_ms=self._now_ms,
        )

    def _stopped(self, follower: StreamFollower) -> None:
        stream = self._streams.get(follower.log.conv_id)
        if stream is not None and stream.follower is follower:
            stream.follower = None
            self._logs.unfollow(follower.log.conv_id)
            self._forget_unused(stream)

    def _forget_unused(self, stream: _Stream) -> None:
        """Of a log that lies elsewhere nothing is kept here that nobody reads or writes."""
        if self._logs.are_here or stream.coordinator is not None or stream.follower is not None:
            return
        if self._streams.get(stream.log.conv_id) is stream:
            del self._streams[stream.log.conv_id]
