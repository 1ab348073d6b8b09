"""OwnedSessions: the sessions of this process among many; it takes their mail, and ends them.

A session with nothing to do is given up at once: it is where its data is, not where its owner was.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from redis.exceptions import RedisError

from cluster.leases import Lease, LeaseLost, Leases
from cluster.store import NOTHING, Claim, Extra, RedisStore
from cluster.tasks import end

from . import commands
from .commands import Command, Mail, Refusal, Reply, SubmitAnswer
from .inference.errors import Draining, Refused, StreamStalled, Unavailable
from .manager import SessionManager
from .record import pack_turns, unpack_turns
from .stored import Newer, Stored
from .values import LiveSession, Shown, Started, Submitted, Unloaded

logger = logging.getLogger(__name__)

KEPT_ANSWERS = 32
REAP_SECONDS = 1.0
REAPED_AT_ONCE = 100
AWAY = (RedisError, OSError, LeaseLost, StreamStalled, Unavailable, Draining)
"""What says that something is not to be had now: it is tried again, and needs no traceback."""


class SharedStreams(Protocol):
    """What sessions of many processes ask of whoever carries their events, beside the usual."""

    async def adopt(self, conv_id: str) -> object:
        """This process writes the conversation's log from here on."""

    async def renounce(self, conv_id: str) -> None:
        """This process writes it no more."""

    async def shown(self, conv_id: str, inference_id: str) -> Sequence[Shown]:
        """What people were shown of the last inference."""


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
    newer: Newer = field(default_factory=Newer)


class OwnedSessions:
    """Owns the leases, and the tasks that serve and reap. Belongs to one event loop.

    `answer` takes a reply to a mail, for the process that sent it; `given_up` is told of each
    session that this process had and has no more.
    """

    manager: SessionManager
    _streams: SharedStreams

    def __init__(
        self,
        store: RedisStore,
        *,
        process: str,
        lease_seconds: float,
        now_ms: Callable[[], int],
        answer: Callable[[str, str, bytes], Coroutine[Any, Any, None]],
        given_up: Callable[[LiveSession], None],
    ) -> None:
        self._store = store
        self._process = process
        self._seconds = lease_seconds
        self._now_ms = now_ms
        self._answer = answer
        self._given_up = given_up
        self.leases = Leases(
            store, process, on_lost=self._lost, on_mail=self.look, seconds=lease_seconds
        )
        self._owned: dict[str, _Owned] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._adopting: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._reaper: asyncio.Task[None] | None = None

    def bind(self, manager: SessionManager, streams: SharedStreams) -> None:
        """Says who has the sessions, with `look` as its `on_idle`, and who carries their events."""
        self.manager = manager
        self._streams = streams

    def start(self) -> None:
        """Looks after conversations that nobody owns, from here on."""
        self._reaper = asyncio.create_task(self._reap_for_ever(), name="reaper")

    def __contains__(self, conv_id: str) -> bool:
        return conv_id in self._owned

    def extra(self, conv_id: str) -> Extra:
        """The session's state where it has changed, for the very frames that changed it."""
        owned = self._owned.get(conv_id)
        if owned is None:
            return NOTHING
        session = self.manager.session(conv_id)
        stored = msgspec.json.encode(
            Stored(
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
        stored = owned.newer.added_to(stored)
        if stored == owned.written and turns is None:
            return NOTHING
        owned.written = stored
        return Extra(stored, turns, owned.mail_done)

    async def take(self, conv_id: str) -> Claim | None:
        """Makes this process the owner and takes the mail; who owns it where that is another.

        Raises what is `AWAY`.
        """
        if conv_id not in self._owned:
            place = await self.leases.claim(conv_id)
            if not isinstance(place, Lease):
                return place
            await self._settle(place)
        self.look(conv_id)
        return None

    async def stop_reaping(self) -> None:
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            await end(reaper)

    async def aclose(self) -> None:
        """Gives every session up, once the manager is closed."""
        for conv_id in tuple(self._owned):
            self.look(conv_id)
        while busy := (
            *self._serving.values(),
            *self._leaving,
            *self._adopting.values(),
            *self._answering.values(),
        ):
            await asyncio.wait(busy)
        await self.leases.aclose()

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

    def asked(self, conv_id: str, id: str) -> None:
        """As `look`, for a process that waits for the answer to its mail.

        One that was given already is given again: it may have been lost on its way.
        """
        owned = self._owned.get(conv_id)
        given = None if owned is None else owned.answers.get(id)
        if given is None:
            self.look(conv_id)
        else:
            self._give(id, *given)

    def _give(self, id: str, sender: str, reply: bytes) -> None:
        """By itself: who waits for it may be somewhere that cannot be reached now."""
        if id not in self._answering:
            task = asyncio.create_task(self._answer(id, sender, reply), name=f"answer:{id}")
            self._answering[id] = task
            task.add_done_callback(lambda task: self._answering.pop(id))

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
            await _hint(self._store.forget_lease(conv_id))
        if not await self.leases.release(owned.lease, mail_done=left or owned.mail_done):
            await _hint(self._store.note_leases([conv_id], ttl_ms=round(self._seconds * 1000)))
            return False
        if self._owned.get(conv_id) is owned:  # and not claimed anew meanwhile
            del self._owned[conv_id]
            if session is not None:
                seen = session.live()
                if owned.evicted_ms is not None:
                    gone = Unloaded(since_ms=owned.evicted_ms)
                    seen = msgspec.structs.replace(seen, state=gone)
                self._given_up(seen)
            self.manager.give_up(conv_id)
            await self._streams.renounce(conv_id)
        if waits:
            await _hint(self._store.note_leases([conv_id], ttl_ms=0))
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
        self._give(mail.id, *owned.answers[mail.id])

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

    async def _settle(self, lease: Lease) -> None:
        """Returns when this process can act as the owner. Who gives up waiting stops nothing.

        Raises LeaseLost.
        """
        earlier, owned = self._adopting.get(lease.conv_id), self._owned.get(lease.conv_id)
        if earlier is not None and (owned is None or owned.lease is not lease):
            # It began with a lease that is lost since, and makes nobody the owner.
            await asyncio.wait({earlier})
        adopting = self._adopting.get(lease.conv_id)
        if adopting is None:
            if lease.conv_id in self._owned:
                return
            if lease.lost is not None:
                raise LeaseLost(f"{lease.conv_id} is not this process's any more")
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
            stored = Stored.of(raw)
            owned.written = raw or b""
            owned.newer = Newer(raw)
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
                        self._give(id, sender, answer)
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
            other = await self.take(conv_id)
            if other is not None:
                await self._store.note_leases([conv_id], ttl_ms=other.remaining_ms)
        except (RedisError, OSError) as error:
            logger.debug("%s cannot be reached: %s", conv_id, error)
            # Behind those that can be: of a cluster it may be one node that is away.
            await _hint(self._store.note_leases([conv_id], ttl_ms=round(REAP_SECONDS * 1000)))
        except AWAY as error:
            logger.debug("%s cannot be looked after: %s", conv_id, error)
        except Exception:
            logger.exception("%s could not be looked after", conv_id)


async def _hint(left: Awaitable[None]) -> None:
    """What helps others to find a conversation, and is done without where it cannot be left."""
    with suppress(RedisError, OSError):
        await left


def _submit_answer(submitted: Submitted, replayed: bool) -> SubmitAnswer:
    if isinstance(submitted, Started):
        return SubmitAnswer(started=submitted, replayed=replayed)
    return SubmitAnswer(queued=submitted, replayed=replayed)
