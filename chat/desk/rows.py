"""Live sessions joined with their streams: what sessions and transport each know of one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sessions_app.access import Identity, can
from sessions_app.values import Idle, LiveSession, SessionDetail, Transcript, Unloaded

from ..apps import hub
from ..frames import type_of
from ..log import Entry
from ..streams import StreamInfo, together

ROWS_STEP = 500
"""How many rows are joined before others have their turn."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One live session as an operator sees it in a list."""

    session: LiveSession
    stream: StreamInfo

    @property
    def is_busy(self) -> bool:
        return not isinstance(self.session.state, Idle | Unloaded)

    def as_json(self) -> dict[str, Any]:
        """As the debug API says it."""
        session = msgspec.structs.asdict(self.session)
        return {**session, **msgspec.structs.asdict(self.stream), "running": self.is_busy}


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One session in full. `said` is None for who may not read what was said in it."""

    row: Row
    detail: SessionDetail
    said: Transcript | None

    def as_json(self) -> dict[str, Any]:
        """As the debug API says it."""
        said = self.said
        queue = [msgspec.structs.asdict(prompt) for prompt in self.detail.queue]
        pauses = [msgspec.structs.asdict(pause) for pause in self.detail.pauses]
        told = {
            **self.row.as_json(),
            "runtime": self.detail.runtime,
            "pauses": pauses,
            "queue": queue,
            "inferences": self.detail.inferences,
        }
        if said is not None:
            told |= {"title": said.title, "system_prompt": said.system_prompt}
            for prompt in queue:
                prompt["prompt"] = said.prompts.get(prompt["idempotency_key"], "")
            for pause in pauses:
                pause["extra"] = said.pauses.get(pause["pause_id"], {})
        return told


class LoggedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame in the log: when it was told, the type of the event it came of, and itself."""

    seq: int
    at_ms: int
    event: str
    type: str
    size: int
    frame: msgspec.Raw


async def rows() -> Sequence[Row]:
    """Every live session of the service."""
    there = await hub().streams_elsewhere()
    joined = []
    for number, session in enumerate(await hub().sessions.live(), 1):
        here = hub().streams.info(session.conv_id)
        joined.append(Row(session=session, stream=together(here, there.get(session.conv_id))))
        if number % ROWS_STEP == 0:
            await asyncio.sleep(0)
    return joined


async def detail(conv_id: str, *, reader: Identity, turns: int) -> Detail | None:
    """One session, live or unloaded; what was said in it and its last turns if they may read it."""
    found = await hub().sessions.inspect(conv_id)
    if found is None:
        return None
    said = None
    if can(reader, "transcript", found.session):
        said = await hub().sessions.transcript(conv_id, turns=turns)
    row = Row(session=found.session, stream=await stream_of(conv_id))
    return Detail(row=row, detail=found, said=said)


async def stream_of(conv_id: str) -> StreamInfo:
    """A conversation's stream as it is, with the sockets of every process."""
    there = await hub().streams_elsewhere()
    return together(await hub().streams.look(conv_id), there.get(conv_id))


async def frames(
    conv_id: str, *, since_seq: int = 0, types: Iterable[str] = (), limit: int, last: bool = False
) -> Sequence[LoggedFrame]:
    """Frames in the log after `since_seq`, oldest first: the first `limit`, or the `last` ones."""
    entries = await hub().streams.window(conv_id, since_seq=since_seq)
    # In a thread: a full window is thousands of frames to look into.
    return await asyncio.to_thread(_logged, entries, frozenset(types), limit, last)


def _logged(
    entries: Sequence[Entry], types: frozenset[str], limit: int, last: bool
) -> Sequence[LoggedFrame]:
    found: list[LoggedFrame] = []
    for entry in reversed(entries) if last else entries:
        if len(found) == limit:
            break
        type_ = type_of(entry.text)
        if types and type_ not in types:
            continue
        frame = LoggedFrame(
            seq=entry.seq,
            at_ms=entry.at_ms,
            event=entry.event,
            type=type_,
            size=entry.size,
            frame=msgspec.Raw(entry.text.encode()),
        )
        found.append(frame)
    return found[::-1] if last else found
