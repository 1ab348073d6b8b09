"""ClusterSessions: the sessions of many processes, each owned by at most one of them.

A verb is mail to the conversation: whoever owns it takes it, in the order it came; where nobody
does, the process that was asked becomes the owner. A session with nothing to do is given up at
once: it is where its data is, not where its owner was.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

import msgspec
from redis.exceptions import RedisError

from cluster.fields import Fields, unknown_fields, with_fields
from cluster.inbox import Inbox
from cluster.leases import LEASE_SECONDS, Lease, LeaseLost, Leases
from cluster.presence import Presence
from cluster.store import NOTHING, Extra, RedisStore
from cluster.tasks import end

from . import commands
from .commands import ANSWERS, Command, Mail, Refusal, Reply, SubmitAnswer
from .inference.errors import (
    ConversationNotFound,
    Draining,
    KeyReused,
    Refused,
    StreamStalled,
    Unavailable,
)
from .inference.steps import Edits, PersonDecision, Resolution
from .manager import SessionManager, request_name
from .record import VERSION, SessionRecord, pack_turns, unpack_turns
from .values import (
    Idle,
    LiveSession,
    ProfileInfo,
    PromptRequest,
    SessionDetail,
    SessionInfo,
    Shown,
    Started,
    Submitted,
    Transcript,
    Unloaded,
)

logger = logging.getLogger(__name__)

KEPT_ANSWERS = 32
TOPIC = "sessions"
TOLD_MOST = 10_000
RECENT_MOST = 1000
RECENT_SECONDS = 300
"""Who lists sessions sees idle ones for that long, as in one process."""
REAP_SECONDS = 1.0
REAPED_AT_ONCE = 100
AWAY = (RedisError, OSError, LeaseLost, StreamStalled, Unavailable, Draining)
"""What says that something is not to be had now: it is tried again, and needs no traceback."""

STORE_DOWN = "the conversations cannot be reached just now; try again in a few seconds"
NO_ANSWER = (
    "no server has answered for this conversation; look at it again, for what you asked may have "
    "been done"
)


_live_decoder = msgspec.json.Decoder(list[LiveSession])


class SharedStreams(Protocol):
    """What sessions of many processes ask of whoever carries their events, beside the usual."""

    async def adopt(self, conv_id: str) -> object:
        """This process writes the conversation's log from here on."""

    async def renounce(self, conv_id: str) -> None:
        """This process writes it no more."""

    async def shown(self, conv_id: str, inference_id: str) -> Sequence[Shown]:
        """What people were shown of the last inference."""


class _Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies in the store beside the log. `answers` are the last ones given, oldest first."""

    session: SessionRecord | None = None
    mail_done: str = ""
    answers: tuple[tuple[str, str, msgspec.Raw], ...] = ()  # the mail's id, its sender, the Reply


class _SessionAlone(msgspec.Struct, frozen=True):
    session: msgspec.Raw = msgspec.Raw(b"{}")


@dataclass(eq=False)
class _Owned:
    """A conversation of this process."""

    lease: Lease
    mail_done: str = ""
    answers: OrderedDict[str, tuple[str, bytes]] = field(default_factory=OrderedDict)
    written: bytes = b""
    turns_written: int = 0
    evicted_ms: int | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    unknown: Fields = field(default_factory=dict)
    unknown_session: Fields = field(default_factory=dict)

    def keep_unknown(self, raw: bytes, stored: _Stored) -> None:
        """Remembers what newer code has added, to be written again with every change."""
        self.unknown = unknown_fields(raw, _Stored)
        if stored.session is not None:
            session = msgspec.json.decode(raw, type=_SessionAlone).session
            newer = {"v": msgspec.Raw(b"%d" % stored.session.v)}
            self.unknown_session = {
                **unknown_fields(bytes(session), SessionRecord),
                **(newer if stored.session.v > VERSION else {}),
            }

    def with_unknown(self, raw: bytes) -> bytes:
        if self.unknown_session:
            session = msgspec.json.decode(raw, type=_SessionAlone).session
            told = msgspec.Raw(with_fields(bytes(session), self.unknown_session))
            raw = with_fields(raw, {"session": told})
        return with_fields(raw, self.unknown)


class ClusterSessions:
    """Answers `chat.ports.Sessions` for every process alike. Belongs to one event loop.

    `manager` has the sessions that this process owns. A verb may raise Unavailable beside what the
    port says.
    """

    manager: SessionManager
    _streams: SharedStreams
    _watched: Callable[[], Awaitable[Collection[str]]]

    def __init__(
        self,
        store: RedisStore,
        *,
        process: str,
        presence: Presence,
        lease_seconds: float = LEASE_SECONDS,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._process = process
        self._now_ms = now_ms
        self._seconds = lease_seconds
        self.leases = Leases(
            store, process, on_lost=self._lost, on_mail=self.look, seconds=lease_seconds
        )
        self._inbox = Inbox(store.client, process, on_message=self._heard)
        self._owned: dict[str, _Owned] = {}
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._adopting: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._recent: OrderedDict[str, LiveSession] = OrderedDict()
        self._presence = presence
        presence.tell(TOPIC, self._tell)

    def bind(
        self,
        manager: SessionManager,
        streams: SharedStreams,
        *,
        watched: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        """Says who has the sessions, with `look` as its `on_idle`, and who carries their events.

        `watched` tells the conversations that somebody follows, at any process.
        """
        self.manager = manager
        self._streams = streams
        self._watched = watched

    def extra(self, conv_id: str) -> Extra:
        """The session's state where it has changed, for the very frames that changed it."""
        owned = self._owned.get(conv_id)
        if owned is None:
            return NOTHING
        session = self.manager.session(conv_id)
        stored = msgspec.json.encode(
            _Stored(
                session=None if session is None else session.record(),
                mail_done=owned.mail_done,
                answers=tuple(
                    (id, sender, msgspec.Raw(reply))
                    for id, (sender, reply) in owned.answers.items()
                ),
            )
        )
        turns = None
        if session is not None and len(session.turns) != owned.turns_written:
            turns = pack_turns(session.turns)
            owned.turns_written = len(session.turns)
        stored = owned.with_unknown(stored)
        if stored == owned.written and turns is None:
            return NOTHING
        owned.written = stored
        return Extra(stored, turns, owned.mail_done)

    # The port

    def profiles(self) -> tuple[ProfileInfo, ...]:
        return self.manager.profiles()

    async def find(self, conv_id: str) -> SessionInfo | None:
        record = await self._record(conv_id)
        if record is not None:
            return _info(record)
        if not self.manager.recalls:
            return None
        found: SessionInfo | None = await self._ask(conv_id, commands.Find())
        return found

    async def open(self, conv_id: str, *, owner: str, profile: str | None) -> SessionInfo:
        found = await self.find(conv_id)
        if found is not None:
            return found
        made: SessionInfo = await self._ask(conv_id, commands.Open(owner=owner, profile=profile))
        await self._note_owner(made.owner, conv_id)
        return made

    async def owned_by(self, owner: str) -> tuple[SessionInfo, ...]:
        ids = await _reached(self._store.owned(owner))
        records = await asyncio.gather(*(self._record(conv_id) for conv_id in ids))
        mine = [_info(record) for record in records if record is not None and record.owner == owner]
        return tuple(sorted(mine, key=lambda info: info.last_activity_ms, reverse=True))

    async def submit(
        self,
        request: PromptRequest,
        *,
        admit: Callable[[], Awaitable[None] | None] = lambda: None,
    ) -> tuple[Submitted, bool]:
        request = replace(request, idempotency_key=request.idempotency_key or str(uuid4()))
        assert request.idempotency_key is not None
        key, name = request.idempotency_key, request_name(request)
        new, first_name, conv_id = await _reached(
            self._store.reserve_key(request.owner, key, name, request.conv_id or str(uuid4()))
        )
        if first_name != name:
            raise KeyReused(
                "this idempotency key was used for another request; mint a new one for each prompt"
            )
        if new:
            try:
                self.manager.refuse_when_closing()
                counted = admit()
                if counted is not None:
                    await counted
            except Exception:
                await self._forget_key(request.owner, key)
                raise
        try:
            command = commands.Submit(request=replace(request, conv_id=conv_id), name=name)
            answer: SubmitAnswer = await self._ask(conv_id, command)
        except Unavailable:
            raise
        except Refused:
            if new:
                await self._forget_key(request.owner, key)
            raise
        await self._note_owner(request.owner, conv_id)
        submitted = answer.started or answer.queued
        assert submitted is not None
        return submitted, answer.replayed

    async def cancel(
        self, conv_id: str, *, inference_id: str | None = None, queue: bool = False
    ) -> str:
        await self._must_exist(conv_id)
        ended: str = await self._ask(
            conv_id, commands.Cancel(inference_id=inference_id, queue=queue)
        )
        return ended

    async def remove_queued(self, conv_id: str, key: str) -> None:
        await self._must_exist(conv_id)
        await self._ask(conv_id, commands.RemoveQueued(key=key))

    async def run_queued_now(self, conv_id: str, key: str) -> str:
        await self._must_exist(conv_id)
        ended: str = await self._ask(conv_id, commands.RunQueuedNow(key=key))
        return ended

    async def set_step_mode(self, conv_id: str, enabled: bool, *, by: str) -> None:
        await self._must_exist(conv_id)
        await self._ask(conv_id, commands.SetStepMode(enabled=enabled, by=by))

    async def pause_permissions(self, conv_id: str, pause_id: str) -> frozenset[str]:
        record = await self._record(conv_id)
        if record is None or record.run is None:
            return frozenset()
        asked: frozenset[str] = await self._ask(
            conv_id, commands.PausePermissions(pause_id=pause_id)
        )
        return asked

    async def decide(
        self,
        conv_id: str,
        pause_id: str,
        decision: PersonDecision,
        *,
        by: str,
        edits: Edits | None = None,
        message: str = "",
    ) -> Resolution:
        resolution: Resolution = await self._ask(
            conv_id,
            commands.Decide(
                pause_id=pause_id, decision=decision, by=by, edits=edits, message=message
            ),
        )
        return resolution

    async def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        ids = await _reached(self._store.owned(old_owner))
        moved = []
        for conv_id in ids:
            given = commands.GiveTo(old_owner=old_owner, new_owner=new_owner)
            if await self._ask(conv_id, given):
                moved.append(conv_id)
                await self._note_owner(new_owner, conv_id)
        await _reached(self._store.transfer(old_owner, new_owner))
        await self.manager.transfer(old_owner, new_owner)
        return tuple(moved)

    async def live(self) -> tuple[LiveSession, ...]:
        """Those that run anywhere, that somebody watches, and that were active a while ago."""
        latest: dict[str, LiveSession] = {}
        for session in (*await self._live_here(), *await self._live_elsewhere()):
            known = latest.get(session.conv_id)
            if known is None or known.state.since_ms < session.state.since_ms:
                latest[session.conv_id] = session
        watched = set(await self._watched())
        unknown = [conv_id for conv_id in watched if conv_id not in latest][:RECENT_MOST]
        for record in await asyncio.gather(*(self._record(conv_id) for conv_id in unknown)):
            if record is not None:
                latest[record.conv_id] = self.manager.idle(record)
        since_ms = self._now_ms() - RECENT_SECONDS * 1000
        return tuple(
            session
            for session in latest.values()
            if not isinstance(session.state, Unloaded)
            and (
                not isinstance(session.state, Idle)
                or session.last_activity_ms >= since_ms
                or session.conv_id in watched
            )
        )

    async def _live_here(self) -> Sequence[LiveSession]:
        return (*self._recent.values(), *await self.manager.live())

    async def _live_elsewhere(self) -> Sequence[LiveSession]:
        found: list[LiveSession] = []
        for said in await _reached(self._presence.others(TOPIC)):
            try:
                found += _live_decoder.decode(said)
            except msgspec.MsgspecError as error:
                logger.debug("another process cannot be understood: %s", error)
        return found

    async def _tell(self) -> bytes:
        since_ms = self._now_ms() - RECENT_SECONDS * 1000
        for conv_id, session in tuple(self._recent.items()):
            if session.last_activity_ms < since_ms:
                del self._recent[conv_id]
        return msgspec.json.encode((await self._live_here())[-TOLD_MOST:])

    def _remember(self, session: LiveSession) -> None:
        """For the lists of operators: what an idle session was when it was here last."""
        known = self._recent.get(session.conv_id)
        if known is not None and known.state.since_ms > session.state.since_ms:
            return  # evicted since it was last used
        self._recent[session.conv_id] = session
        self._recent.move_to_end(session.conv_id)
        while len(self._recent) > RECENT_MOST:
            self._recent.popitem(last=False)

    async def inspect(self, conv_id: str) -> SessionDetail | None:
        if await self._record(conv_id) is None:
            return None
        detail: SessionDetail | None = await self._ask(conv_id, commands.Inspect())
        return detail

    async def transcript(self, conv_id: str, *, turns: int) -> Transcript | None:
        if await self._record(conv_id) is None:
            return None
        said: Transcript | None = await self._ask(conv_id, commands.ReadTranscript(turns=turns))
        return said

    async def evict(self, conv_id: str) -> None:
        await self._must_exist(conv_id)
        await self._ask(conv_id, commands.Evict())

    async def drain(self, timeout: float) -> None:
        await self._stop_reaping()
        await self.manager.drain(timeout)

    async def aclose(self) -> None:
        """Ends what runs here as cancelled, gives every session up, and leaves the service."""
        await self._stop_reaping()
        await self.manager.aclose(keep_queue=True)
        for conv_id in tuple(self._owned):
            self.look(conv_id)
        while busy := (*self._serving.values(), *self._leaving, *self._adopting.values()):
            await asyncio.wait(busy)
        await self.leases.aclose()
        await self._inbox.aclose()

    def start(self) -> None:
        """Called once on the running loop, before the first request."""
        self._inbox.start()
        self._reaper = asyncio.create_task(self._reap_for_ever(), name="reaper")

    # The owner's side

    def look(self, conv_id: str) -> None:
        """Takes the mail of a conversation that this process owns, and gives it up when idle."""
        if conv_id not in self._owned:
            return
        if conv_id in self._serving:
            self._again.add(conv_id)
            return
        task = asyncio.create_task(self._serve(conv_id), name=f"mail:{conv_id}")
        self._serving[conv_id] = task
        task.add_done_callback(lambda task: self._served(conv_id, task))

    def _served(self, conv_id: str, task: asyncio.Task[None]) -> None:
        del self._serving[conv_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the mail of %s could not be taken", conv_id, exc_info=error)
        if conv_id in self._again:
            self._again.discard(conv_id)
            self.look(conv_id)

    async def _serve(self, conv_id: str) -> None:
        owned = self._owned.get(conv_id)
        if owned is None:
            return
        await owned.ready.wait()
        while owned.lease.lost is None:
            try:
                mail = await self._store.mail(conv_id, after=owned.mail_done)
                left = ""
                for id, raw in mail:
                    if self._starts_nothing(conv_id):
                        left = mail[-1][0]
                        break
                    await self._take(owned, id, raw)
                session = self.manager.session(conv_id)
                if session is not None and not session.is_done:
                    return
                if await self._give_up(owned, left=left):
                    return
            except (LeaseLost, StreamStalled):
                return
            except (RedisError, OSError, Unavailable) as error:
                logger.debug("the mail of %s cannot be read: %s", conv_id, error)
                await asyncio.sleep(REAP_SECONDS)

    def _starts_nothing(self, conv_id: str) -> bool:
        """Whether mail is left to another process: this one goes, and nothing runs any more."""
        session = self.manager.session(conv_id)
        return self.manager.closing and (session is None or session.active is None)

    async def _give_up(self, owned: _Owned, *, left: str = "") -> bool:
        """False: more mail has come. Mail up to `left` is left for another process."""
        conv_id = owned.lease.conv_id
        await self.manager.flush(conv_id)
        session = self.manager.session(conv_id)
        waits = bool(left) or (session is not None and session.info().queue_depth > 0)
        if not waits:
            # Before it is free: the next owner's note must stay.
            await self._store.forget_lease(conv_id)
        if not await self.leases.release(owned.lease, mail_done=left or owned.mail_done):
            await self._store.note_leases([conv_id], ttl_ms=round(self._seconds * 1000))
            return False
        if self._owned.get(conv_id) is owned:  # and not claimed anew meanwhile
            del self._owned[conv_id]
            if session is not None:
                seen = session.live()
                if owned.evicted_ms is not None:
                    gone = Unloaded(since_ms=owned.evicted_ms)
                    seen = msgspec.structs.replace(seen, state=gone)
                self._remember(seen)
            self.manager.give_up(conv_id)
            await self._streams.renounce(conv_id)
        if waits:
            await self._store.note_leases([conv_id], ttl_ms=0)
        return True

    async def _take(self, owned: _Owned, id: str, raw: bytes) -> None:
        conv_id = owned.lease.conv_id
        try:
            mail = msgspec.json.decode(raw, type=Mail)
        except msgspec.DecodeError as error:
            logger.error("mail of %s is none that is known here: %s", conv_id, error)
            owned.mail_done = id  # or nothing after it would ever be taken
            return
        if mail.id not in owned.answers:
            # From here on it counts as taken, whatever becomes of this process.
            owned.mail_done = id
            reply = msgspec.json.encode(await self._performed(owned, mail))
            owned.answers[mail.id] = (mail.sender, reply)
            while len(owned.answers) > KEPT_ANSWERS:
                owned.answers.popitem(last=False)
        owned.mail_done = id
        await self.manager.flush(conv_id)
        await self._answer(mail.id, *owned.answers[mail.id])

    async def _performed(self, owned: _Owned, mail: Mail) -> Reply:
        """Raises LeaseLost, StreamStalled where the next owner will be asked the same."""
        try:
            value = await self._perform(owned.lease.conv_id, mail.command)
        except Refused as refused:
            return Reply(id=mail.id, refusal=Refusal.of(refused))
        except Exception as error:
            if owned.lease.lost is not None:
                raise LeaseLost(f"{owned.lease.conv_id} is not this process's any more") from error
            logger.exception("%s could not be done", type(mail.command).__name__)
            unable = Unavailable(f"this could not be done: {type(error).__name__}")
            return Reply(id=mail.id, refusal=Refusal.of(unable))
        return Reply(id=mail.id, value=msgspec.Raw(msgspec.json.encode(value)))

    async def _perform(self, conv_id: str, command: Command) -> Any:
        manager = self.manager
        match command:
            case commands.Open(owner=owner, profile=profile):
                return await manager.open(conv_id, owner=owner, profile=profile)
            case commands.Find():
                return await manager.recalled(conv_id)
            case commands.Submit():
                answer = await manager.submit(command.request, name=command.name, also_closing=True)
                return _submit_answer(*answer)
            case commands.Cancel(inference_id=inference_id, queue=queue):
                return await manager.cancel(conv_id, inference_id=inference_id, queue=queue)
            case commands.RemoveQueued(key=key):
                return await manager.remove_queued(conv_id, key)
            case commands.RunQueuedNow(key=key):
                return await manager.run_queued_now(conv_id, key)
            case commands.SetStepMode(enabled=enabled, by=by):
                return await manager.set_step_mode(conv_id, enabled, by=by)
            case commands.PausePermissions(pause_id=pause_id):
                return await manager.pause_permissions(conv_id, pause_id)
            case commands.Decide():
                return await manager.decide(
                    conv_id,
                    command.pause_id,
                    command.decision,
                    by=command.by,
                    edits=command.edits,
                    message=command.message,
                )
            case commands.Inspect():
                return await manager.inspect(conv_id)
            case commands.ReadTranscript(turns=turns):
                return await manager.transcript(conv_id, turns=turns)
            case commands.Evict():
                manager.refuse_when_busy(conv_id)
                self._owned[conv_id].evicted_ms = self._now_ms()
                return None
            case commands.GiveTo(old_owner=old_owner, new_owner=new_owner):
                return manager.give_to(conv_id, old_owner, new_owner)

    async def _answer(self, id: str, sender: str, reply: bytes) -> None:
        if sender == self._process:
            self._resolve(id, reply)
        else:
            await self._inbox.send(sender, {"id": id.encode(), "reply": reply})

    async def _settle(self, lease: Lease) -> None:
        """Returns when this process can act as the owner. Who gives up waiting stops nothing."""
        adopting = self._adopting.get(lease.conv_id)
        if adopting is None:
            if lease.conv_id in self._owned:
                return
            adopting = asyncio.create_task(self._adopt(lease), name=f"adopt:{lease.conv_id}")
            self._adopting[lease.conv_id] = adopting
            adopting.add_done_callback(lambda task: self._adopted(lease.conv_id, task))
        await asyncio.shield(adopting)

    def _adopted(self, conv_id: str, task: asyncio.Task[None]) -> None:
        del self._adopting[conv_id]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, AWAY):
            logger.warning("%s could not be taken over: %s", conv_id, error)
        elif error is not None:
            logger.error("%s could not be taken over", conv_id, exc_info=error)

    async def _adopt(self, lease: Lease) -> None:
        """Makes the conversation this process's: its log, its session, and what is to be ended."""
        conv_id = lease.conv_id
        owned = self._owned[conv_id] = _Owned(lease)
        try:
            raw, turns = await asyncio.gather(
                self._store.record(conv_id), self._store.turns(conv_id)
            )
            await self._streams.renounce(conv_id)
            await self._streams.adopt(conv_id)
            stored = _Stored() if raw is None else msgspec.json.decode(raw, type=_Stored)
            owned.written = raw or b""
            if raw is not None:
                owned.keep_unknown(raw, stored)
            owned.mail_done = stored.mail_done
            for id, sender, reply in stored.answers:
                owned.answers[id] = (sender, bytes(reply))
            if stored.session is not None:
                history = () if turns is None else unpack_turns(turns)
                owned.turns_written = len(history)
                run = stored.session.run
                shown = () if run is None else await self._streams.shown(conv_id, run.inference_id)
                if lease.lost is not None:
                    raise LeaseLost(f"{conv_id} was lost as it was taken over ({lease.lost})")
                self.manager.resume(stored.session, history, shown)
                await self.manager.flush(conv_id)
                for id, (sender, answer) in owned.answers.items():
                    # Whoever asked the process that died is still waiting.
                    if run is not None or sender == self._process:
                        await self._answer(id, sender, answer)
        except BaseException:
            self.leases.abandon(lease, "fenced")
            raise
        owned.ready.set()

    def _lost(self, lease: Lease) -> None:
        """The lease is another's: nothing of the session may be done or written here any more."""
        owned = self._owned.get(lease.conv_id)
        if owned is None or owned.lease is not lease:
            return
        del self._owned[lease.conv_id]
        owned.ready.set()
        self.manager.give_up(lease.conv_id, "another server has taken over")
        leaving = asyncio.create_task(
            self._streams.renounce(lease.conv_id), name=f"renounce:{lease.conv_id}"
        )
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _reap_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - a jitter
            try:
                due = await self._store.due(most=REAPED_AT_ONCE)
                await asyncio.gather(*(self._reap(conv_id) for conv_id in due))
            except AWAY as error:
                logger.debug("nobody can be looked after: %s", error)

    async def _reap(self, conv_id: str) -> None:
        """Goes on with a conversation that nobody owns. One that cannot be holds up no other."""
        if conv_id in self._owned:
            return
        try:
            place = await self.leases.claim(conv_id)
            if isinstance(place, Lease):
                await self._settle(place)
                self.look(conv_id)
            else:
                await self._store.note_leases([conv_id], ttl_ms=place.remaining_ms)
        except AWAY as error:
            logger.debug("%s cannot be looked after: %s", conv_id, error)
        except Exception:
            logger.exception("%s could not be looked after", conv_id)

    async def _stop_reaping(self) -> None:
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            await end(reaper)

    # The asker's side

    async def _ask(self, conv_id: str, command: Command) -> Any:
        """Has the owner do it, who may be this process. Raises what it refuses; Unavailable.

        A process that goes becomes nobody's owner any more: it raises Draining.
        """
        if conv_id not in self._owned:
            self.manager.refuse_when_closing()
        mail = Mail(id=str(uuid4()), sender=self._process, command=command)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[mail.id] = answer
        try:
            await _reached(self._store.post(conv_id, msgspec.json.encode(mail)))
            async with asyncio.timeout(self._seconds * 3):
                while not answer.done():
                    wait = await self._find_owner(conv_id)
                    await asyncio.wait({answer}, timeout=wait)
            reply = msgspec.json.decode(answer.result(), type=Reply)
        except TimeoutError:
            raise Unavailable(NO_ANSWER) from None
        finally:
            del self._waiting[mail.id]
        if reply.refusal is not None:
            raise reply.refusal.raised()
        return msgspec.json.decode(reply.value, type=ANSWERS[type(command)])

    async def _find_owner(self, conv_id: str) -> float:
        """Tells the owner of its mail, or becomes it; how long to wait until it is asked again."""
        if conv_id in self._owned:
            self.look(conv_id)
            return REAP_SECONDS
        if self.manager.closing:
            return REAP_SECONDS  # it must not become the owner; whoever is or does will answer
        try:
            place = await self.leases.claim(conv_id)
            if isinstance(place, Lease):
                await self._settle(place)
                self.look(conv_id)
                return REAP_SECONDS
            await self._inbox.send(place.owner, {"mail": conv_id.encode()})
            return min(place.remaining_ms / 1000 + 0.05, REAP_SECONDS)
        except AWAY as error:
            logger.debug("the owner of %s cannot be found: %s", conv_id, error)
            return 0.25

    def _heard(self, message: Mapping[bytes, bytes]) -> None:
        if b"reply" in message:
            self._resolve(message[b"id"].decode(), message[b"reply"])
        elif b"mail" in message:
            self.look(message[b"mail"].decode())

    def _resolve(self, id: str, reply: bytes) -> None:
        answer = self._waiting.get(id)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    async def _record(self, conv_id: str) -> SessionRecord | None:
        raw = await _reached(self._store.record(conv_id))
        return None if raw is None else msgspec.json.decode(raw, type=_Stored).session

    async def _must_exist(self, conv_id: str) -> None:
        """Keeps mail from being left for ids that nobody has."""
        if await self.find(conv_id) is None:
            raise ConversationNotFound("there is no such conversation")

    async def _forget_key(self, owner: str, key: str) -> None:
        """What was refused may be asked again, changed too, with the same key."""
        with suppress(RedisError, OSError):
            await self._store.forget_key(owner, key)

    async def _note_owner(self, owner: str, conv_id: str) -> None:
        await _reached(self._store.note_owner(owner, conv_id, self._now_ms()))


async def _reached(asked: Any) -> Any:
    """The store's answer. Raises Unavailable where there is none."""
    try:
        return await asked
    except (RedisError, OSError) as error:
        logger.debug("the store cannot be reached: %s", error)
        raise Unavailable(STORE_DOWN) from None


def _submit_answer(submitted: Submitted, replayed: bool) -> SubmitAnswer:
    if isinstance(submitted, Started):
        return SubmitAnswer(started=submitted, replayed=replayed)
    return SubmitAnswer(queued=submitted, replayed=replayed)


def _info(record: SessionRecord) -> SessionInfo:
    return SessionInfo(
        conv_id=record.conv_id,
        owner=record.owner,
        title=record.title,
        profile=record.profile,
        running=record.run is not None,
        queue_depth=len(record.queue),
        step_mode=record.step_mode,
        created_ms=record.created_ms,
        last_activity_ms=record.last_activity_ms,
    )
