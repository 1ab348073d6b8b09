"""Session: one conversation's history and its at most one active inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import uuid4

from .execution import ExecutionHandle
from .inference.errors import NoActiveInference, RunInProgress
from .inference.events import EventSink, InferenceStarted, Origin, PromptTaken, SessionUpdated
from .inference.runner import Cancellation, InferenceRunner
from .inference.turns import Turn, TurnMetadata, User
from .profiles import Profile
from .values import SessionInfo

TITLE_CHARS = 80


class EngineBuilder(Protocol):
    def build(self, session: Session) -> InferenceRunner:
        """The runner for the session's current profile. Called before an inference, never in one.

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
    ) -> None:
        self.id = id
        self.owner = owner
        self.profile = profile
        self.turns: tuple[Turn, ...] = ()
        self.active: ExecutionHandle | None = None
        self._builder = builder
        self._runner: InferenceRunner | None = None
        self._runner_fingerprint = ""
        self._sink = sink
        self._now_ms = now_ms
        self._created_ms = self._last_activity_ms = now_ms()
        self._title = ""

    def submit(self, prompt: str, *, key: str, profile: Profile | None = None) -> ExecutionHandle:
        """Takes the prompt up and starts its inference, in one step. Raises RunInProgress.

        `profile` other than the session's becomes the session's from this inference on.
        """
        if self.active is not None:
            raise RunInProgress(
                "An answer is still being written in this conversation; wait for it, or stop it."
            )
        runner = self._runner_for(profile or self.profile)
        self._title = self._title or _title(prompt)
        inference_id = str(uuid4())
        turn = self._next_turn(prompt, inference_id)
        origin = Origin(inference_id=inference_id, turn_id=turn.id)
        self._sink.publish(
            PromptTaken(
                message_id=turn.blocks[-1].id,
                content=prompt,
                turn_id=turn.id,
                idempotency_key=key,
            ),
            origin,
        )
        self._sink.publish(
            InferenceStarted(
                inference_id=inference_id,
                turn_id=turn.id,
                profile=self.profile.slug,
                model=runner.model,
                idempotency_key=key,
            ),
            origin,
        )
        return self._start(runner, turn)

    async def cancel(self, inference_id: str | None = None) -> str:
        """Ends the active inference and returns its id at once; it will end as cancelled.

        Raises NoActiveInference, also for another id, and when the end was already being written:
        then it returns only once that is in the log, so that answer and log agree.
        """
        handle = self.active
        if handle is None or inference_id not in (None, handle.inference_id):
            raise NoActiveInference("no such inference is active in this conversation")
        if not handle.cancel():
            await handle.wait()
            raise NoActiveInference("the inference has just ended")
        return handle.inference_id

    def info(self) -> SessionInfo:
        return SessionInfo(
            conv_id=self.id,
            owner=self.owner,
            title=self._title,
            profile=self.profile.slug,
            running=self.active is not None,
            queue_depth=0,
            created_ms=self._created_ms,
            last_activity_ms=self._last_activity_ms,
        )

    def touch(self) -> None:
        self._last_activity_ms = self._now_ms()

    async def flush(self) -> None:
        """Returns when all the session has published is in the log."""
        await self._sink.flush()

    def _runner_for(self, profile: Profile) -> InferenceRunner:
        """The runner for `profile`, rebuilt when its fingerprint is not the last one's."""
        previous = self.profile
        self.profile = profile
        if self._runner is None or self._runner_fingerprint != profile.fingerprint:
            try:
                self._runner = self._builder.build(self)
            except BaseException:
                self.profile = previous
                raise
            self._runner_fingerprint = profile.fingerprint
        if previous is not profile:
            self._sink.publish(
                SessionUpdated(
                    profile=profile.slug, fingerprint=profile.fingerprint, step_mode=False
                )
            )
        return self._runner

    def _next_turn(self, prompt: str, inference_id: str) -> Turn:
        latest = self.turns[-1] if self.turns else Turn()
        metadata = TurnMetadata(
            session_id=self.id,
            inference_id=inference_id,
            fingerprint=self.profile.fingerprint,
        )
        return latest.derive(User(text=prompt), metadata=metadata)

    def _start(self, runner: InferenceRunner, turn: Turn) -> ExecutionHandle:
        assert self.active is None and turn.metadata.inference_id is not None

        begun = False

        async def execute(cancellation: Cancellation) -> Turn:
            nonlocal begun
            begun = True
            try:
                final = await runner.run(turn, sink=self._sink, cancellation=cancellation)
                self.turns += (final,)
                return final
            finally:
                self.active = None
                self.touch()

        def ended() -> None:
            # Torn down before its first step: nobody else can write its end.
            if not begun:
                self.turns += (runner.give_up(turn, sink=self._sink),)
                self.active = None

        self.touch()
        self.active = ExecutionHandle(
            execute, ended=ended, inference_id=turn.metadata.inference_id, turn_id=turn.id
        )
        return self.active


def _title(prompt: str) -> str:
    line = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"
