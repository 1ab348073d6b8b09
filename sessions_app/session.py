"""Session: one conversation's history and its at most one active inference."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol
from uuid import uuid4

import msgspec
from structlog.contextvars import bind_contextvars, unbind_contextvars

from .execution import ExecutionHandle
from .inference.errors import InferenceFailed, NoActiveInference, RunInProgress
from .inference.events import (
    EventSink,
    InferenceFinished,
    InferenceStarted,
    Origin,
    PromptTaken,
    SessionUpdated,
)
from .inference.runner import Cancellation, InferenceRunner
from .inference.steps import StepController
from .inference.turns import Turn, TurnMetadata, User
from .profiles import Profile
from .queue import Prompt, PromptQueue
from .record import SessionRecord, StoredKey, StoredRun, lost_turn
from .stages import StageRecorder, failures
from .store import PERSIST_SECONDS, StoredConversation, TurnPersister, unpersisted
from .transcript import last
from .values import (
    Idle,
    LiveSession,
    PauseInfo,
    Policy,
    Queued,
    QueuedInfo,
    SessionDetail,
    SessionInfo,
    SessionState,
    Shown,
    Started,
    Stopping,
    Transcript,
)

logger = logging.getLogger(__name__)

TITLE_CHARS = 80
LOST = "The server that wrote this answer is gone; what you see is all there is. Ask again."


class EngineBuilder(Protocol):
    def build(self, session: Session) -> InferenceRunner:
        """The runner for `session.runtime`. Called before an inference, never in one.

        Raises ConfigurationError when the profile cannot be built.
        """


class Session:
    """Append-only turns, and one ExecutionHandle at a time.

    Belongs to one event loop; no verb but the awaited ones suspends, so each is atomic.
    """

    def __init__(
        self,
        id: str,
        *,
        owner: str,
        profile: Profile,
        builder: EngineBuilder,
        sink: EventSink,
        now_ms: Callable[[], int],
        queue_limit: int = 16,
        persister: TurnPersister = unpersisted,
        on_idle: Callable[[str], None] = lambda id: None,
    ) -> None:
        self.id = id
        self.owner = owner
        self.profile = profile
        self.runtime = profile
        self.turns: tuple[Turn, ...] = ()
        self.active: ExecutionHandle | None = None
        self.steps = StepController(now_ms=now_ms)
        self.steps.set_enabled(profile.step_mode, by="system")
        self._steps_before: bool | None = None
        """What step mode goes back to after an inference that has its own."""
        self.closing = False
        self.keys: tuple[StoredKey, ...] = ()
        """The answers given to idempotency keys here, for whoever goes on with the session."""
        self._abandoned = False
        self._on_idle = on_idle
        self._run: StoredRun | None = None
        self._queue = PromptQueue(queue_limit)
        self._persister = persister
        self._builder = builder
        self._runner: InferenceRunner | None = None
        self._runner_fingerprint = ""
        self._sink = StageRecorder(sink, now_ms=now_ms)
        self._now_ms = now_ms
        self._created_ms = self._last_activity_ms = now_ms()
        self._stop_asked_ms: int | None = None
        self._title = ""

    def take(self, prompt: Prompt, policy: Policy = "queue") -> Started | Queued:
        """Starts the prompt, or has it wait; one step. Raises RunInProgress, QueueFull.

        A prompt that `interrupt`s cancels the active inference and is the next to run.
        """
        if self.active is None:
            handle = self.start(prompt)
            return Started(
                conv_id=self.id,
                inference_id=handle.inference_id,
                turn_id=handle.turn_id,
                idempotency_key=prompt.key,
            )
        if policy == "reject":
            raise RunInProgress(
                "An answer is still being written in this conversation; wait for it, or stop it."
            )
        waiting = replace(prompt, queued_ms=self._now_ms())
        position = self._queue.put(waiting, first=policy == "interrupt")
        self._title = self._title or _title(prompt.text)
        self._sink.publish(self._queue.as_event())
        if policy == "interrupt":
            self.stop()
        return Queued(
            conv_id=self.id,
            idempotency_key=prompt.key,
            position=position,
            depth=len(self._queue),
        )

    def start(self, prompt: Prompt) -> ExecutionHandle:
        """Takes the prompt up now and starts its inference. Raises RunInProgress."""
        if self.active is not None:
            raise RunInProgress("an inference is running in this conversation")
        return self._begin(prompt, self._runner_for(prompt))

    def stop(self, reason: str | None = None) -> bool:
        """Asks the active inference to end. False: none is, or its end is already being written."""
        if self.active is None or not self.active.cancel(reason):
            return False
        if self._stop_asked_ms is None:
            self._stop_asked_ms = self._now_ms()
        return True

    def remove(self, key: str) -> None:
        """Takes a waiting prompt out of the queue. Raises NotQueued."""
        self._queue.remove(key)
        self._sink.publish(self._queue.as_event())

    def run_now(self, key: str) -> str:
        """Ends the active inference, whose id it returns, for a prompt that waits: it is the next.

        Raises NotQueued, also when the prompt was taken up already; then nothing is ended.
        """
        if self._queue.promote(key):
            self._sink.publish(self._queue.as_event())
        assert self.active is not None, "a prompt waits only while an inference is active"
        self.stop()
        return self.active.inference_id

    def clear_queue(self) -> None:
        """Forgets all prompts that wait."""
        if self._queue.clear():
            self._sink.publish(self._queue.as_event())

    def set_step_mode(self, enabled: bool, *, by: str) -> None:
        """Switches step mode; on, it takes effect at the next pause point."""
        self._steps_before = None
        if self.steps.set_enabled(enabled, by=by):
            self._sink.publish(self._updated())

    async def cancel(self, inference_id: str | None = None, *, queue: bool = False) -> str:
        """Ends the active inference and returns its id at once; it will end as cancelled.

        With `queue` the prompts that wait are forgotten too. Raises NoActiveInference, also for
        another id, and when the end was already being written: then it returns only once that is
        in the log, so that answer and log agree, and what waited is forgotten all the same.
        """
        handle = self.active
        if handle is None or inference_id not in (None, handle.inference_id):
            raise NoActiveInference("no such inference is active in this conversation")
        if queue:
            self.clear_queue()
        if not self.stop():
            await self.flush()
            raise NoActiveInference("the inference has just ended")
        return handle.inference_id

    def info(self) -> SessionInfo:
        return SessionInfo(
            conv_id=self.id,
            owner=self.owner,
            title=self._title,
            profile=self.profile.slug,
            running=self.active is not None,
            paused=self._paused,
            queue_depth=len(self._queue),
            step_mode=self.steps.enabled,
            created_ms=self._created_ms,
            last_activity_ms=self._last_activity_ms,
        )

    def state(self) -> SessionState:
        """What the session does now."""
        current = self._sink.current
        if self.active is None or current is None:
            return Idle(since_ms=self._last_activity_ms)
        state = current.state()
        if self._stop_asked_ms is not None and current.ended_ms is None:
            return Stopping(inference_id=current.id, since_ms=self._stop_asked_ms)
        return state

    def live(self) -> LiveSession:
        """The session at this moment, without what was said in it."""
        current = self._sink.current if self.active is not None else None
        return LiveSession(
            conv_id=self.id,
            owner=self.owner,
            profile=self.profile.slug,
            model=self.runtime.model,
            fingerprint=self.runtime.fingerprint,
            state=self.state(),
            running_since_ms=None if current is None else current.started_ms,
            queue_depth=len(self._queue),
            step_mode=self.steps.enabled,
            turns=len(self.turns),
            errors=self._sink.errors,
            last_error=self._sink.last_error,
            created_ms=self._created_ms,
            last_activity_ms=self._last_activity_ms,
        )

    def inspect(self) -> SessionDetail:
        """The session in full, without what was said in it."""
        return SessionDetail(
            session=self.live(),
            runtime=self.runtime.info(),
            pauses=tuple(
                PauseInfo(
                    pause_id=pause.pause_id,
                    phase=pause.request.phase,
                    summary=pause.request.summary,
                    since_ms=pause.since_ms,
                    deadline_ms=pause.deadline_ms,
                    on_timeout=pause.request.on_timeout,
                    approval=pause.request.approval,
                    permissions=tuple(sorted(pause.request.permissions)),
                )
                for pause in self.steps.open
            ),
            queue=tuple(
                QueuedInfo(
                    idempotency_key=prompt.key,
                    position=position,
                    since_ms=prompt.queued_ms or 0,
                    profile=None if prompt.profile is None else prompt.profile.slug,
                    overrides=prompt.runtime is not None,
                )
                for position, prompt in enumerate(self._queue, 1)
            ),
            inferences=tuple(self._sink.inferences()),
        )

    def transcript(self, *, turns: int) -> Transcript:
        """What was said in it: the last `turns` as the model sees them, secrets and all."""
        return Transcript(
            title=self._title,
            system_prompt=self.runtime.system_prompt,
            turns=last(self.turns, turns),
            prompts={prompt.key: prompt.text for prompt in self._queue},
            pauses={pause.pause_id: pause.request.extra for pause in self.steps.open},
        )

    def stored(self) -> StoredConversation:
        """What the session can be made of again."""
        return StoredConversation(
            conv_id=self.id,
            owner=self.owner,
            profile=self.profile.slug,
            title=self._title,
            created_ms=self._created_ms,
            last_activity_ms=self._last_activity_ms,
            turns=self.turns,
            step_mode=self.steps.enabled,
        )

    def restore(self, stored: StoredConversation) -> None:
        """Goes on from a stored conversation. Only before the first prompt."""
        assert not self.turns and self.active is None
        self.turns = stored.turns
        self._title = stored.title
        self._created_ms = stored.created_ms
        self._last_activity_ms = stored.last_activity_ms
        if stored.step_mode is not None:
            self.steps.set_enabled(stored.step_mode, by="system")
        self._sink.errors = failures(stored.turns)

    def record(self) -> SessionRecord:
        """What the session is, but for its turns, at this moment."""
        return SessionRecord(
            conv_id=self.id,
            owner=self.owner,
            profile=self.profile.slug,
            title=self._title,
            created_ms=self._created_ms,
            last_activity_ms=self._last_activity_ms,
            step_mode=self.steps.enabled,
            step_mode_after=self._steps_before,
            queue=tuple(prompt.stored() for prompt in self._queue),
            keys=self.keys,
            decisions=tuple(self.steps.ended),
            turns=len(self.turns),
            errors=self._sink.errors,
            inferences=self._sink.handed_on,
            run=self._stored_run(),
        )

    def resume(
        self,
        record: SessionRecord,
        turns: tuple[Turn, ...],
        shown: Sequence[Shown],
        *,
        profile_of: Callable[[str], Profile],
    ) -> None:
        """Goes on with a session that another process had; only right after it was made.

        An inference that ran there is lost: its end is told with what is `shown` of it, and the
        next prompt that waits is taken up.
        """
        assert not self.turns and self.active is None
        self.turns = turns
        self.keys = record.keys
        self._title = record.title
        self._created_ms = record.created_ms
        self._last_activity_ms = record.last_activity_ms
        self.steps.set_enabled(record.step_mode, by="system")
        self.steps.recall(record.decisions)
        self._steps_before = record.step_mode_after
        self._sink.errors = failures(turns)
        self._sink.go_on_from(record.inferences)
        for prompt in record.queue:
            self._queue.put(Prompt.of(prompt, profile_of))
        if record.run is not None:
            self._lose(record.run, shown)
        if record.run is not None or len(self._queue):
            self._free()

    def _lose(self, run: StoredRun, shown: Sequence[Shown]) -> None:
        """Ends as lost; as cancelled where that was promised to somebody."""
        origin = Origin(inference_id=run.inference_id, turn_id=run.turn_id)
        self._sink.publish(
            InferenceFinished(
                inference_id=run.inference_id,
                status=run.outcome,
                stop_reason="cancelled" if run.stopping else "error",
                model="",
                error=None if run.stopping else LOST,
                duration_ms=max(0, self._now_ms() - run.started_ms),
            ),
            origin,
        )
        self._keep(lost_turn(self.turns, run, shown))

    def abandon(self, reason: str) -> None:
        """Another process has the session: what runs here is ended, and no word of it is kept."""
        self._abandoned = self.closing = True
        self.stop(reason)

    @property
    def is_done(self) -> bool:
        """Nothing runs, and of what waits nothing will run here."""
        return self.active is None and (self.closing or not len(self._queue))

    def _stored_run(self) -> StoredRun | None:
        run, stopping = self._run, self._stop_asked_ms is not None
        return run and msgspec.structs.replace(run, stopping=stopping, paused=self._paused)

    @property
    def _paused(self) -> bool:
        return bool(self.steps.open)

    def touch(self) -> None:
        self._last_activity_ms = self._now_ms()

    async def flush(self) -> None:
        """Returns when all the session has published is in the log."""
        await self._sink.flush()

    def _runner_for(self, prompt: Prompt) -> InferenceRunner:
        """The runner for the prompt's runtime, rebuilt when that is not the last one's.

        Whatever the builder raises leaves the session as it was.
        """
        before = (self.profile, self.runtime)
        self.profile, self.runtime = self._wanted(prompt)
        if self._runner is None or self._runner_fingerprint != self.runtime.fingerprint:
            try:
                self._runner = self._builder.build(self)
            except BaseException:
                self.profile, self.runtime = before
                raise
            self._runner_fingerprint = self.runtime.fingerprint
        changed = before[1].fingerprint != self.runtime.fingerprint
        if self.profile.step_mode and self.profile is not before[0]:
            changed |= self.steps.set_enabled(True, by="system")
        if prompt.step_mode is not None:
            self._steps_before = self.steps.enabled
            changed |= self.steps.set_enabled(prompt.step_mode, by="system")
        if changed:
            self._sink.publish(self._updated())
        return self._runner

    def _wanted(self, prompt: Prompt) -> tuple[Profile, Profile]:
        """The profile and the runtime that the prompt runs with."""
        profile = prompt.profile or self.profile
        return profile, prompt.runtime or profile

    def _updated(self) -> SessionUpdated:
        return SessionUpdated(
            profile=self.profile.slug,
            fingerprint=self.runtime.fingerprint,
            step_mode=self.steps.enabled,
        )

    def _next_turn(self, prompt: str, inference_id: str, fingerprint: str) -> Turn:
        latest = self.turns[-1] if self.turns else Turn()
        metadata = TurnMetadata(
            session_id=self.id, inference_id=inference_id, fingerprint=fingerprint
        )
        return latest.derive(User(text=prompt), metadata=metadata)

    def _begin(self, prompt: Prompt, runner: InferenceRunner) -> ExecutionHandle:
        profile, runtime = self._wanted(prompt)
        self._title = self._title or _title(prompt.text)
        inference_id = str(uuid4())
        turn = self._next_turn(prompt.text, inference_id, runtime.fingerprint)
        asked = turn.blocks[-1]
        assert isinstance(asked, User)
        self._run = StoredRun(
            inference_id=inference_id,
            turn_id=turn.id,
            prompt=asked,
            fingerprint=runtime.fingerprint,
            started_ms=self._now_ms(),
        )
        origin = Origin(inference_id=inference_id, turn_id=turn.id)
        self._sink.publish(
            PromptTaken(
                message_id=turn.blocks[-1].id,
                content=prompt.text,
                turn_id=turn.id,
                idempotency_key=prompt.key,
            ),
            origin,
        )
        self._sink.publish(
            InferenceStarted(
                inference_id=inference_id,
                turn_id=turn.id,
                profile=profile.slug,
                model=runner.model,
                idempotency_key=prompt.key,
            ),
            origin,
        )
        self._sink.begin(
            inference_id,
            profile=profile.slug,
            model=runner.model,
            fingerprint=runtime.fingerprint,
            queued_since_ms=prompt.queued_ms,
        )
        return self._start(runner, turn)

    def _start(self, runner: InferenceRunner, turn: Turn) -> ExecutionHandle:
        assert self.active is None and turn.metadata.inference_id is not None

        begun = False

        async def execute(cancellation: Cancellation) -> Turn:
            nonlocal begun
            begun = True
            # Each line of the log inside the inference says where it is from.
            bind_contextvars(conv_id=self.id, inference_id=turn.metadata.inference_id)
            try:
                final = await runner.run(
                    turn,
                    sink=self._sink,
                    cancellation=cancellation,
                    owner=self.owner,
                    keep=self._keep,
                )
                await self._persist(final)
                return final
            finally:
                unbind_contextvars("inference_id")
                self._free()

        def ended() -> None:
            # Torn down before its first step: nobody else can write its end.
            if not begun:
                self._keep(runner.give_up(turn, sink=self._sink))
                self._free()

        self.touch()
        self.active = ExecutionHandle(
            execute, ended=ended, inference_id=turn.metadata.inference_id, turn_id=turn.id
        )
        return self.active

    def _keep(self, final: Turn) -> None:
        """In the step that publishes the end, so that the record has both or neither."""
        self.turns += (final,)
        self._run = None

    def _free(self) -> None:
        """Frees the slot for the next prompt that waits, in one step: nobody jumps the queue."""
        self.active = self._stop_asked_ms = None
        self.touch()
        if self._steps_before is not None:
            self.set_step_mode(self._steps_before, by="system")
        if self.closing or (prompt := self._queue.take()) is None:
            self._on_idle(self.id)
            return
        self._sink.publish(self._queue.as_event())
        try:
            prompt.context.run(self.start, prompt)
        except Exception as error:
            # Ended as any other: taken up, failed, next.
            logger.exception("a queued prompt of %s could not be started", self.id)
            _, runtime = self._wanted(prompt)
            broken = InferenceRunner(_Broken(runtime.model, error))
            prompt.context.run(self._begin, prompt, broken)

    async def _persist(self, turn: Turn) -> None:
        if self._abandoned:
            return
        try:
            async with asyncio.timeout(PERSIST_SECONDS):
                await self._persister(replace(self.stored(), turns=(turn,)))
        except Exception:
            logger.exception("the turn of %s could not be persisted", self.id)


class _Broken:
    """The engine of a runtime that cannot be built: it fails and says why."""

    def __init__(self, model: str, error: Exception) -> None:
        self.model = model
        self._error = error

    async def infer(self, turn: Turn) -> Turn:
        raise InferenceFailed(f"This prompt's profile cannot be used: {self._error}")


def _title(prompt: str) -> str:
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"
