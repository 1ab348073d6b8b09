"""SessionManager: finds, opens, unloads and ends sessions. Answers `chat.ports.Sessions`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

import msgspec

from .access import Identity, can
from .idempotency import IdempotencyKeys, request_hash
from .inference.engine import Closing
from .inference.errors import (
    BadOverride,
    ConfigurationError,
    ConversationNotFound,
    Draining,
    NoActiveInference,
    NotQueued,
    Refused,
    RunInProgress,
    UnknownPause,
)
from .inference.steps import Edits, PersonDecision, Resolution
from .inference.tools import ToolRegistry
from .inference.turns import Turn
from .observing import EventObserver, ObservedSink
from .profiles import Profile, Profiles, overridden
from .queue import Prompt
from .record import SessionRecord, StoredKey
from .session import EngineBuilder, Session
from .shelf import SessionStreams, Shelf
from .stages import failures
from .store import (
    ConversationStore,
    StoredConversation,
    TurnPersister,
    TurnStore,
    unpersisted,
)
from .transcript import last, masked, readable
from .values import (
    Idle,
    LiveSession,
    ProfileInfo,
    PromptRequest,
    Queued,
    SessionDetail,
    SessionInfo,
    Shown,
    Started,
    Submitted,
    Transcript,
    Unloaded,
)

logger = logging.getLogger(__name__)

KEPT_KEYS = 200
"""How many answers to idempotency keys go with a conversation from process to process."""

SNAPSHOT_STEP = 200
"""How many sessions are looked at before others have their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerLimits:
    """Counts, bytes and seconds; what happens at each is said in docs/settings.md."""

    queue: int = 16
    live_sessions: int = 10_000
    idempotency_keys: int = 100_000
    idempotency_seconds: float = 24 * 3600
    evict_idle_seconds: float = 300
    evict_every_seconds: float = 60
    conversation_ttl_seconds: float = 24 * 3600
    memory_bytes: int = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerStatistics:
    """One moment of the manager."""

    live: int
    stored: int
    running: int
    queued: int
    paused: int


class SessionManager:
    """Owns every session of the process, and the task that unloads idle ones.

    Belongs to one event loop. What a verb decides it decides in one step, with no await inside.
    The secrets that `tools` declare are masked in what `transcript()` hands out, and in what the
    persister is given. `check` raises ConfigurationError for a profile with overrides that could
    not be built: such a prompt is refused, before it may wait. Whoever is told by `on_idle` that a
    session has nothing to do gives it up; without it, idle sessions are unloaded here.
    """

    def __init__(
        self,
        *,
        profiles: Profiles,
        builder: EngineBuilder,
        check: Callable[[Profile], None] = lambda profile: None,
        streams: SessionStreams,
        tools: ToolRegistry | None = None,
        limits: ManagerLimits | None = None,
        turn_store: TurnStore | None = None,
        turn_persister: TurnPersister = unpersisted,
        observers: Sequence[EventObserver] = (),
        on_idle: Callable[[str], None] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._profiles = profiles
        self._builder = builder
        self._check = check
        self._streams = streams
        self._tools = tools or ToolRegistry()
        self._limits = limits or ManagerLimits()
        self._turn_persister = turn_persister
        self._observers = tuple(observers)
        self._on_idle = on_idle
        self._now_ms = now_ms
        self._sessions: dict[str, Session] = {}
        self._shelf = Shelf(
            ConversationStore(
                ttl_seconds=self._limits.conversation_ttl_seconds,
                memory_bytes=self._limits.memory_bytes,
                now_ms=now_ms,
                size_of=streams.size,
                forget=streams.forget,
            ),
            streams=streams,
            tools=self._tools,
            turn_store=turn_store,
            is_live=self._sessions.__contains__,
        )
        self._keys = IdempotencyKeys(
            limit=self._limits.idempotency_keys,
            seconds=self._limits.idempotency_seconds,
            now_ms=now_ms,
        )
        self._closing = False
        self._evictor: asyncio.Task[None] | None = None

    def profiles(self) -> tuple[ProfileInfo, ...]:
        return self._profiles.infos()

    async def find(self, conv_id: str) -> SessionInfo | None:
        session = self._sessions.get(conv_id)
        if session is not None:
            return session.info()
        stored = await self._shelf.find(conv_id)
        return None if stored is None else stored.info()

    async def open(
        self,
        conv_id: str,
        *,
        owner: str,
        profile: str | None,
        known: SessionInfo | None = None,
    ) -> SessionInfo:
        chosen = self._profiles.get(profile)
        session = await self._load(conv_id)
        if session is None:
            session = self._create(conv_id, owner=owner, profile=chosen.slug)
        return session.info()

    async def owned_by(self, owner: str) -> tuple[SessionInfo, ...]:
        live = [session.info() for session in self._sessions.values() if session.owner == owner]
        stored = [kept.info() for kept in self._shelf if kept.owner == owner]
        return tuple(sorted(live + stored, key=lambda i: i.last_activity_ms, reverse=True))

    async def submit(
        self,
        request: PromptRequest,
        *,
        admit: Callable[[], object] = lambda: None,
        name: str | None = None,
        also_closing: bool = False,
    ) -> tuple[Submitted, bool]:
        """The answer to the request, and whether it is an earlier one's to the same key.

        `admit` is called for a new prompt, before anything happens for it, and may raise Refused.
        `name` is that of the request as it was made, where it was given a conversation since.
        `also_closing`: a prompt may wait here that another process will run.
        """
        name = name or request_name(request)
        earlier = self._earlier(request, name)
        if earlier is not None:
            # As long as the key is known here, also by a server that takes no more prompts.
            answer, replayed = earlier, True
        else:
            if not also_closing:
                self.refuse_when_closing()
            if request.conv_id is not None:
                await self._load(request.conv_id)
            answer, replayed = self._submit_now(request, admit, name, also_closing)
        session = self._sessions.get(answer.conv_id)
        if session is not None:
            await session.flush()
        return answer, replayed

    def _submit_now(
        self, request: PromptRequest, admit: Callable[[], object], name: str, also_closing: bool
    ) -> tuple[Submitted, bool]:
        """Looks the key up, opens, starts or queues, and remembers: one step."""
        if not also_closing:
            self.refuse_when_closing()
        earlier = self._earlier(request, name)
        if earlier is not None:
            return earlier, True
        session = self._sessions.get(request.conv_id) if request.conv_id else None
        if session is not None and not can(Identity(request.owner), "send", session):
            raise ConversationNotFound("there is no such conversation")
        admit()
        profile = None if request.profile is None else self._profiles.get(request.profile)
        base = profile or (
            session.profile if session is not None else self._profiles.get(request.new_profile)
        )
        runtime, step_mode = None, None
        if request.overrides:
            runtime, step_mode = overridden(base, request.overrides)
            try:
                self._check(runtime)
            except ConfigurationError as error:
                raise BadOverride(f"overrides: {error}") from None
        created = session is None
        if session is None:
            session = self._create(
                request.conv_id or str(uuid4()), owner=request.owner, profile=base.slug
            )
        key = request.idempotency_key or str(uuid4())
        prompt = Prompt(
            text=request.prompt,
            key=key,
            # Overrides were checked against this profile: they run with it, whatever runs before.
            profile=base if request.overrides else profile,
            runtime=runtime,
            step_mode=step_mode,
        )
        try:
            answer = session.take(prompt, request.policy)
        except Exception:
            if created:
                # As if nobody had asked: no empty conversation in a profile that cannot be built.
                del self._sessions[session.id]
                self._streams.forget(session.id)
            raise
        self._remember(session, request.owner, key, name, answer)
        return answer, False

    def _remember(
        self, session: Session, owner: str, key: str, name: str, answer: Submitted
    ) -> None:
        self._keys.remember(owner, key, name, answer)
        kept = StoredKey(
            key=key,
            request=name,
            at_ms=self._now_ms(),
            started=answer if isinstance(answer, Started) else None,
            queued=answer if isinstance(answer, Queued) else None,
        )
        session.keys = (*session.keys, kept)[-KEPT_KEYS:]

    def resume(
        self, record: SessionRecord, turns: tuple[Turn, ...], shown: Sequence[Shown]
    ) -> Session:
        """Makes a session live that another process had. See `Session.resume`."""
        session = self._create(record.conv_id, owner=record.owner, profile=record.profile)
        for kept in record.keys:
            if (answer := kept.started or kept.queued) is not None:
                self._keys.remember(record.owner, kept.key, kept.request, answer)
        session.resume(record, turns, shown, profile_of=self._profiles.get_or_default)
        return session

    @property
    def recalls(self) -> bool:
        """Whether there may be conversations that only the app has kept."""
        return self._shelf.recalls

    async def recalled(self, conv_id: str) -> SessionInfo | None:
        """The conversation made live, also where only the app has kept it."""
        session = await self._load(conv_id)
        return None if session is None else session.info()

    async def flush(self, conv_id: str) -> None:
        """Returns when all that was published for the conversation is in its log."""
        await self._streams.sink(conv_id).flush()

    def session(self, conv_id: str) -> Session | None:
        """The live session, if there is one."""
        return self._sessions.get(conv_id)

    def give_up(self, conv_id: str, reason: str | None = None) -> None:
        """Knows the session no more: another process may have it. What runs in it is ended.

        Nor what its keys were answered: that is for the session's next owner to know, who may be
        this process again, and what was not written before has never been said.
        """
        session = self._sessions.pop(conv_id, None)
        if session is None:
            return
        for kept in session.keys:
            self._keys.forget(session.owner, kept.key)
        if reason is not None:
            session.abandon(reason)

    def give_to(self, conv_id: str, old_owner: str, new_owner: str) -> bool:
        """Gives a live session and the keys answered in it to another, if it is `old_owner`'s."""
        session = self._sessions.get(conv_id)
        if session is None or session.owner != old_owner:
            return False
        session.owner = new_owner
        for kept in session.keys:
            if (answer := kept.started or kept.queued) is not None:
                self._keys.remember(new_owner, kept.key, kept.request, answer)
        return True

    def _earlier(self, request: PromptRequest, name: str) -> Submitted | None:
        """What was answered to the request's key. Raises KeyReused."""
        key = request.idempotency_key
        return None if key is None else self._keys.answer(request.owner, key, name)

    async def cancel(
        self, conv_id: str, *, inference_id: str | None = None, queue: bool = False
    ) -> str:
        idle = NoActiveInference("nothing runs in this conversation")
        session = await self._live(conv_id, otherwise=idle)
        return await session.cancel(inference_id, queue=queue)

    async def remove_queued(self, conv_id: str, key: str) -> None:
        (await self._live(conv_id, otherwise=NotQueued("nothing waits here"))).remove(key)

    async def run_queued_now(self, conv_id: str, key: str) -> str:
        return (await self._live(conv_id, otherwise=NotQueued("nothing waits here"))).run_now(key)

    async def set_step_mode(self, conv_id: str, enabled: bool, *, by: str) -> None:
        session = await self._load(conv_id)
        if session is None:
            raise ConversationNotFound("there is no such conversation")
        session.set_step_mode(enabled, by=by)

    async def pause_permissions(self, conv_id: str, pause_id: str) -> frozenset[str]:
        session = self._sessions.get(conv_id)
        for pause in session.steps.open if session else ():
            if pause.pause_id == pause_id:
                return pause.request.permissions
        return frozenset()

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
        session = self._sessions.get(conv_id)
        if session is None:
            raise UnknownPause("no pause waits in this conversation")
        return session.steps.decide(pause_id, decision, by=by, edits=edits, message=message)

    async def transfer(self, old_owner: str, new_owner: str) -> tuple[str, ...]:
        moved = [session for session in self._sessions.values() if session.owner == old_owner]
        for session in moved:
            session.owner = new_owner
        self._keys.transfer(old_owner, new_owner)
        stored = await self._shelf.transfer(old_owner, new_owner)
        return (*(session.id for session in moved), *stored)

    def statistics(self) -> ManagerStatistics:
        # Nothing waits and nothing pauses but in a session that runs: of ten thousand, a few.
        running = [session for session in self._sessions.values() if session.active is not None]
        return ManagerStatistics(
            live=len(self._sessions),
            stored=len(self._shelf),
            running=len(running),
            queued=sum(session.info().queue_depth for session in running),
            paused=sum(bool(session.steps.open) for session in running),
        )

    async def live(self) -> tuple[LiveSession, ...]:
        sessions = []
        for number, session in enumerate(tuple(self._sessions.values()), 1):
            sessions.append(session.live())
            if number % SNAPSHOT_STEP == 0:
                # Nobody's tokens wait for an operator's list of thousands.
                await asyncio.sleep(0)
        return tuple(sessions)

    async def inspect(self, conv_id: str) -> SessionDetail | None:
        session = self._sessions.get(conv_id)
        if session is not None:
            return session.inspect()
        stored = await self._shelf.find(conv_id)
        return None if stored is None else self._unloaded(stored)

    async def transcript(self, conv_id: str, *, turns: int) -> Transcript | None:
        session = self._sessions.get(conv_id)
        if session is not None:
            said = session.transcript(turns=turns)
        else:
            stored = await self._shelf.find(conv_id)
            if stored is None:
                return None
            said = Transcript(
                title=stored.title,
                system_prompt=self._profiles.get_or_default(stored.profile).system_prompt,
                turns=last(stored.turns, turns),
                prompts={},
                pauses={},
            )
        # In a thread: the turns of a long conversation hold many blocks.
        shown = await asyncio.to_thread(readable, said.turns, self._tools)
        return msgspec.structs.replace(said, turns=shown)

    async def evict(self, conv_id: str) -> None:
        self.refuse_when_busy(conv_id)
        self._put_away(self._session(conv_id))
        await self._shelf.settle()

    def refuse_when_busy(self, conv_id: str) -> None:
        """Raises RunInProgress for a session that cannot be unloaded now, ConversationNotFound."""
        info = self._session(conv_id).info()
        if info.running or info.queue_depth:
            raise RunInProgress(
                "An inference runs or prompts wait in this conversation; cancel them first."
            )

    async def evict_idle(self) -> tuple[str, ...]:
        """Unloads what nobody uses and forgets what is too old; returns what it unloaded.

        A session is unloaded in one step: a request finds it live before, or stored after.
        """
        idle_since = self._now_ms() - round(self._limits.evict_idle_seconds * 1000)
        evicted = []
        for session in self._unused():
            if session.info().last_activity_ms <= idle_since:
                self._put_away(session)
                evicted.append(session.id)
        await self._shelf.settle()
        self._shelf.sweep()
        return tuple(evicted)

    async def drain(self, timeout: float) -> None:
        """Takes no more prompts, starts none that wait; returns when none runs, or at `timeout`."""
        self._closing = True
        running = []
        for session in self._sessions.values():
            session.closing = True
            if session.active is not None:
                running.append(asyncio.ensure_future(session.active.wait()))
        if running:
            _, late = await asyncio.wait(running, timeout=timeout)
            for waiting in late:
                waiting.cancel()

    async def aclose(self, reason: str = "server restarting", *, keep_queue: bool = False) -> None:
        """Takes no more prompts, ends every inference as cancelled, and waits for their ends.

        What waits is forgotten, but with `keep_queue`: then another process may take it up.
        """
        self._closing = True
        if self._evictor is not None:
            self._evictor.cancel()
            await asyncio.wait({self._evictor})
        recalling = self._shelf.stop_recalling()
        running = []
        for session in self._sessions.values():
            session.closing = True
            if not keep_queue:
                session.clear_queue()
            if session.active is not None:
                session.stop(reason)
                running.append(session.active.wait())
        await asyncio.gather(*running, *recalling, return_exceptions=True)
        await self._shelf.settle()
        if isinstance(self._builder, Closing):
            await self._builder.aclose()

    async def _load(self, conv_id: str) -> Session | None:
        """The live session, made so again if it was unloaded or the app has kept it."""
        if conv_id not in self._sessions:
            await self._shelf.find(conv_id)
        session = self._sessions.get(conv_id)
        if session is None and (stored := self._shelf.get(conv_id)) is not None:
            # Refused, it stays stored: nobody else may find the id free.
            session = self._create(conv_id, owner=stored.owner, profile=stored.profile)
            session.restore(stored)
            self._shelf.remove(conv_id)
        return session

    async def _persist(self, conversation: StoredConversation) -> None:
        turns = masked(conversation.turns, self._tools)
        await self._turn_persister(replace(conversation, turns=turns))

    def idle(self, record: SessionRecord) -> LiveSession:
        """A session in which nothing runs, as its record tells it."""
        runtime = self._profiles.get_or_default(record.profile).info()
        return LiveSession(
            conv_id=record.conv_id,
            owner=record.owner,
            profile=record.profile,
            model=runtime.model,
            fingerprint=runtime.fingerprint,
            state=Idle(since_ms=record.last_activity_ms),
            running_since_ms=None,
            queue_depth=len(record.queue),
            step_mode=record.step_mode,
            turns=record.turns,
            errors=record.errors,
            last_error=None,
            created_ms=record.created_ms,
            last_activity_ms=record.last_activity_ms,
        )

    def _unloaded(self, stored: StoredConversation) -> SessionDetail:
        runtime = self._profiles.get_or_default(stored.profile).info()
        return SessionDetail(
            session=LiveSession(
                conv_id=stored.conv_id,
                owner=stored.owner,
                profile=stored.profile,
                model=runtime.model,
                fingerprint=runtime.fingerprint,
                state=Unloaded(since_ms=stored.last_activity_ms),
                running_since_ms=None,
                queue_depth=0,
                step_mode=bool(stored.step_mode),
                turns=len(stored.turns),
                errors=failures(stored.turns),
                last_error=None,
                created_ms=stored.created_ms,
                last_activity_ms=stored.last_activity_ms,
            ),
            runtime=runtime,
            pauses=(),
            queue=(),
            inferences=(),
        )

    def _create(self, conv_id: str, *, owner: str, profile: str) -> Session:
        self.refuse_when_closing()
        if len(self._sessions) >= self._limits.live_sessions:
            self._make_room()
        session = self._sessions[conv_id] = Session(
            conv_id,
            owner=owner,
            profile=self._profiles.get_or_default(profile),
            builder=self._builder,
            sink=ObservedSink(self._streams.sink(conv_id), conv_id, self._observers),
            now_ms=self._now_ms,
            queue_limit=self._limits.queue,
            persister=self._persist,
            on_idle=self._on_idle or (lambda conv_id: None),
        )
        if self._evictor is None:
            self._evictor = asyncio.create_task(self._evict_for_ever(), name="session-evictor")
        return session

    def _make_room(self) -> None:
        """Unloads what was unused for longest; nothing of it is lost. Raises Draining."""
        oldest = min(
            self._unused(), key=lambda session: session.info().last_activity_ms, default=None
        )
        if oldest is None:
            raise Draining("the server has as many conversations as it can hold; try again later")
        self._put_away(oldest)

    def _unused(self) -> Sequence[Session]:
        """The sessions that nobody watches and in which nothing runs or waits."""
        if self._on_idle is not None:
            return ()
        return [
            session
            for session in self._sessions.values()
            if session.active is None
            and not session.info().queue_depth
            and not self._streams.watched(session.id)
        ]

    def _put_away(self, session: Session) -> None:
        """Makes a session a stored conversation in one step."""
        del self._sessions[session.id]
        self._shelf.put(session.stored())

    async def _evict_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._limits.evict_every_seconds)
            try:
                await self.evict_idle()
            except Exception:
                logger.exception("idle sessions could not be unloaded; trying again")

    @property
    def closing(self) -> bool:
        """Whether no more inferences are started here."""
        return self._closing

    def refuse_when_closing(self) -> None:
        """Raises Draining where no more prompts are taken."""
        if self._closing:
            raise Draining("the server is restarting; try again in a few seconds")

    async def _live(self, conv_id: str, *, otherwise: Refused) -> Session:
        """The live session. Raises `otherwise` for an unloaded one, in which nothing runs."""
        if conv_id not in self._sessions and await self._shelf.find(conv_id) is not None:
            raise otherwise
        return self._session(conv_id)

    def _session(self, conv_id: str) -> Session:
        try:
            return self._sessions[conv_id]
        except KeyError:
            raise ConversationNotFound("there is no such conversation") from None


def request_name(request: PromptRequest) -> str:
    """The same for two requests that ask the same."""
    return request_hash(request.prompt, request.conv_id, request.profile, request.overrides)
