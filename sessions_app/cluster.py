"""ClusterSessions: the sessions of many processes, each owned by at most one of them.

A verb is mail to the conversation: whoever owns it takes it, in the order it came; where nobody
does, the process that was asked becomes the owner. A session with nothing to do is given up at
once: it is where its data is, not where its owner was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec
from redis.exceptions import RedisError

from cluster.inbox import Inbox
from cluster.leases import LEASE_SECONDS
from cluster.presence import Presence
from cluster.store import RedisStore
from cluster.tasks import end

from . import commands
from .commands import ANSWERS, Command, Mail, Reply, SubmitAnswer
from .inference.errors import ConversationNotFound, KeyReused, Refused, Unavailable
from .inference.steps import Edits, PersonDecision, Resolution
from .listing import Listing
from .manager import SessionManager, request_name
from .ownership import AWAY, OwnedSessions, SharedStreams
from .record import SessionRecord
from .stored import Stored, given_to
from .values import (
    LiveSession,
    ProfileInfo,
    PromptRequest,
    SessionDetail,
    SessionInfo,
    Submitted,
    Transcript,
)

logger = logging.getLogger(__name__)

GIVEN_AT_ONCE = 32
"""Conversations of an owner that are given to another at one time."""
ASK_SECONDS = 1.0
"""How often the owner is told again of mail that it has not answered."""
AWAY_SECONDS = 3.0
"""How long a process that goes waits until it asks whether the store is there."""
PING_SECONDS = 1.0
STORE_DOWN = "the conversations cannot be reached just now; try again in a few seconds"
NO_ANSWER = (
    "no server has answered for this conversation; look at it again, for what you asked may have "
    "been done"
)


class ClusterSessions:
    """Answers `chat.ports.Sessions` for every process alike. Belongs to one event loop.

    `owned` has the sessions that this process owns. A verb may raise Unavailable beside what the
    port says.
    """

    manager: SessionManager

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
        self._inbox = Inbox(store.client, process, on_message=self._heard)
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._listing = Listing(presence, record=self._record, now_ms=now_ms)
        self.owned = OwnedSessions(
            store,
            process=process,
            lease_seconds=lease_seconds,
            now_ms=now_ms,
            answer=self._answer,
            given_up=self._listing.note,
        )

    def bind(
        self,
        manager: SessionManager,
        streams: SharedStreams,
        *,
        watched: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        """Says who has this process's sessions, and who carries their events.

        The manager's `on_idle` is `owned.look`. `watched` tells the conversations that somebody
        follows, at any process.
        """
        self.manager = manager
        self.owned.bind(manager, streams)
        self._listing.bind(manager, watched=watched)

    def start(self) -> None:
        """Called once on the running loop, before the first request."""
        self._inbox.start()
        self.owned.start()

    async def drain(self, timeout: float) -> None:
        await self.owned.stop_reaping()
        await self.manager.drain(timeout)

    async def aclose(self) -> None:
        """Ends what runs here as cancelled, gives every session up, and leaves the service.

        Where the store is away, whoever comes next tells how it ended.
        """
        await self.owned.stop_reaping()
        patience = asyncio.create_task(self._wait_no_longer(), name="store-patience")
        try:
            await self.manager.aclose(keep_queue=True)
            await self.owned.aclose()
        finally:
            await end(patience)
        await self._inbox.aclose()

    async def _wait_no_longer(self) -> None:
        """Owns nothing any more once the store has been away for too long."""
        await asyncio.sleep(AWAY_SECONDS)
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._store.client.ping()
            except (RedisError, OSError, TimeoutError):
                self.owned.leases.abandon_all("expired")
            await asyncio.sleep(PING_SECONDS)

    # The port

    def profiles(self) -> tuple[ProfileInfo, ...]:
        return self.manager.profiles()

    async def find(self, conv_id: str) -> SessionInfo | None:
        record = await self._record(conv_id)
        if record is not None:
            return record.info()
        if not self.manager.recalls:
            return None
        found: SessionInfo | None = await self._ask(conv_id, commands.Find())
        return found

    async def open(
        self,
        conv_id: str,
        *,
        owner: str,
        profile: str | None,
        known: SessionInfo | None = None,
    ) -> SessionInfo:
        found = known or await self.find(conv_id)
        if found is not None:
            return found
        made: SessionInfo = await self._ask(conv_id, commands.Open(owner=owner, profile=profile))
        await self._note_owner(made.owner, conv_id)
        return made

    async def owned_by(self, owner: str) -> tuple[SessionInfo, ...]:
        ids = await _reached(self._store.owned(owner))
        found = [Stored.of(raw).session for raw in await _reached(self._store.records(ids))]
        mine = [each.info() for each in found if each is not None and each.owner == owner]
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
        kept = await _reached(
            self._store.reserve_key(request.owner, key, name, request.conv_id or str(uuid4()))
        )
        new, conv_id = kept.new, kept.conv_id
        if kept.request != name:
            raise KeyReused(
                "this idempotency key was used for another request; mint a new one for each prompt"
            )
        if kept.answer:
            return msgspec.json.decode(kept.answer, type=SubmitAnswer).submitted, True
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
        text = msgspec.json.encode(answer).decode()
        await _reached(self._store.answer_key(request.owner, key, name, conv_id, text))
        return answer.submitted, answer.replayed

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
        given = commands.GiveTo(old_owner=old_owner, new_owner=new_owner)
        at_once = asyncio.Semaphore(GIVEN_AT_ONCE)

        async def give(conv_id: str, raw: bytes | None) -> bool:
            record = Stored.of(raw).session
            if raw is None or record is None or record.owner != old_owner:
                return False
            async with at_once:
                moved: bool = await _reached(
                    # Most are idle, and need nobody who owns them for it.
                    self._store.swap_record(conv_id, raw, given_to(raw, new_owner))
                ) or await self._ask(conv_id, given)
                if moved:
                    await self._note_owner(new_owner, conv_id)
                return moved

        records = await _reached(self._store.records(ids))
        moved = await asyncio.gather(*map(give, ids, records))
        await _reached(self._store.transfer(old_owner, new_owner))
        await self.manager.transfer(old_owner, new_owner)
        return tuple(conv_id for conv_id, went in zip(ids, moved, strict=True) if went)

    async def live(self) -> tuple[LiveSession, ...]:
        found: tuple[LiveSession, ...] = await _reached(self._listing.live())
        return found

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

    # How it is asked

    async def _ask(self, conv_id: str, command: Command) -> Any:
        """Has the owner do it, who may be this process. Raises what it refuses; Unavailable.

        A process that goes becomes nobody's owner any more: it raises Draining.
        """
        if conv_id not in self.owned:
            self.manager.refuse_when_closing()
        mail = Mail(id=str(uuid4()), sender=self._process, command=command)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[mail.id] = answer
        try:
            await _reached(self._store.post(conv_id, msgspec.json.encode(mail)))
            async with asyncio.timeout(self._seconds * 3):
                while not answer.done():
                    wait = await self._find_owner(conv_id, mail.id)
                    await asyncio.wait({answer}, timeout=wait)
            reply = msgspec.json.decode(answer.result(), type=Reply)
        except TimeoutError:
            raise Unavailable(NO_ANSWER) from None
        finally:
            del self._waiting[mail.id]
        if reply.refusal is not None:
            raise reply.refusal.raised()
        return msgspec.json.decode(reply.value, type=ANSWERS[type(command)])

    async def _find_owner(self, conv_id: str, id: str) -> float:
        """Tells the owner of its mail, or becomes it; how long to wait until it is asked again."""
        if self.manager.closing and conv_id not in self.owned:
            return ASK_SECONDS  # it must not become the owner; whoever is or does will answer
        try:
            other = await self.owned.take(conv_id)
        except AWAY as error:
            logger.debug("the owner of %s cannot be found: %s", conv_id, error)
            return 0.25
        if other is None:
            return ASK_SECONDS
        await self._inbox.send(other.owner, {"mail": conv_id.encode(), "id": id.encode()})
        return min(other.remaining_ms / 1000 + 0.05, ASK_SECONDS)

    def _heard(self, message: Mapping[bytes, bytes]) -> None:
        if b"reply" in message:
            self._resolve(message[b"id"].decode(), message[b"reply"])
        elif b"mail" in message:
            self.owned.asked(message[b"mail"].decode(), message.get(b"id", b"").decode())

    async def _answer(self, id: str, sender: str, reply: bytes) -> None:
        if sender == self._process:
            self._resolve(id, reply)
        else:
            await self._inbox.send(sender, {"id": id.encode(), "reply": reply})

    def _resolve(self, id: str, reply: bytes) -> None:
        answer = self._waiting.get(id)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    async def _record(self, conv_id: str) -> SessionRecord | None:
        raw = await _reached(self._store.record(conv_id))
        return Stored.of(raw).session

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
