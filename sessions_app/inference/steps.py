"""StepController: where an inference waits for a person, and how that wait ends exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from .errors import AlreadyDecided, BadEdits, StreamStalled, UnknownPause
from .events import PauseClosed, PauseDecision, PauseOpened, PausePhase, publish

PersonDecision: TypeAlias = Literal["continue", "edit", "skip", "abort"]
Edits: TypeAlias = Mapping[str, Mapping[str, Any]]
REMEMBERED_PAUSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequest:
    """What the loop stops for. `validate` raises BadEdits for arguments that cannot be run."""

    phase: PausePhase
    summary: str
    on_timeout: Literal["continue", "deny"]
    timeout: float
    extra: Mapping[str, Any]
    validate: Callable[[Edits], None]
    approval: bool = False
    permissions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How a pause ended, and by whom: a user name, `visitor`, `timeout` or `system`."""

    pause_id: str
    phase: PausePhase
    decision: PauseDecision
    by: str
    edits: Edits = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPause:
    """A pause that waits: its request, its begin and its deadline in Unix milliseconds."""

    pause_id: str
    request: PauseRequest
    since_ms: int
    deadline_ms: int


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """`context` is that of its inference, which says how it ended."""

    pause: OpenPause
    ended: asyncio.Future[Resolution]
    context: Context
    told: bool = False

    def tell(self, resolution: Resolution) -> None:
        if not self.told:
            closed = PauseClosed(
                pause_id=resolution.pause_id, decision=resolution.decision, by=resolution.by
            )
            self.context.run(publish, closed)
            self.told = True


class StepController:
    """One session's step mode and its pauses. Belongs to one event loop; no verb but `pause` waits.

    A pause ends once: by the first of a decision, its deadline, step mode going off (a step, not an
    approval) or its inference being cancelled.
    """

    def __init__(self, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.enabled = False
        self._now_ms = now_ms
        self._waiting: dict[str, _Waiting] = {}
        self._ended: dict[str, Resolution] = {}

    @property
    def open(self) -> Sequence[OpenPause]:
        """The pauses that wait, oldest first."""
        return tuple(waiting.pause for waiting in self._waiting.values())

    @property
    def ended(self) -> Sequence[Resolution]:
        """How the last pauses ended, oldest first."""
        return tuple(self._ended.values())

    def recall(self, ended: Iterable[Resolution]) -> None:
        """Knows how pauses ended that another process had."""
        self._ended.update((resolution.pause_id, resolution) for resolution in ended)

    def set_enabled(self, enabled: bool, *, by: str) -> bool:
        """Switches step mode; True when that changed it. Off releases every step that waits."""
        changed = enabled is not self.enabled
        self.enabled = enabled
        if not enabled:
            for pause in self.open:
                if not pause.request.approval:
                    self._end(pause, "disabled", by)
        return changed

    def decide(
        self,
        pause_id: str,
        decision: PersonDecision,
        *,
        by: str,
        edits: Edits | None = None,
        message: str = "",
    ) -> Resolution:
        """Ends a pause. Raises UnknownPause; AlreadyDecided with how it ended; BadEdits, and then
        the pause still waits.
        """
        if pause_id in self._ended:
            raise AlreadyDecided(self._ended[pause_id])
        if pause_id not in self._waiting:
            raise UnknownPause(f"no pause {pause_id[:80]!r} waits in this conversation")
        pause = self._waiting[pause_id].pause
        if decision == "edit":
            if not edits:
                raise BadEdits('an edit names the calls it changes: {"edits": {"<call id>": {…}}}')
            pause.request.validate(edits)
        elif edits:
            raise BadEdits(f"edits go with the decision edit, not with {decision}")
        return self._end(pause, decision, by, edits=edits or {}, message=message)

    async def pause(self, request: PauseRequest) -> Resolution:
        """Waits for the end of a new pause and returns it; both are published.

        Cancelling it ends the pause as `cancelled`.
        """
        now_ms = self._now_ms()
        pause = OpenPause(
            pause_id=str(uuid4()),
            request=request,
            since_ms=now_ms,
            deadline_ms=now_ms + round(request.timeout * 1000),
        )
        ended: asyncio.Future[Resolution] = asyncio.get_running_loop().create_future()
        # Published first: a pause that people cannot be told of does not wait.
        publish(
            PauseOpened(
                pause_id=pause.pause_id,
                phase=request.phase,
                summary=request.summary,
                deadline_ms=pause.deadline_ms,
                on_timeout=request.on_timeout,
                extra=request.extra,
            )
        )
        waiting = _Waiting(pause=pause, ended=ended, context=copy_context())
        self._waiting[pause.pause_id] = waiting
        try:
            await asyncio.wait({ended}, timeout=request.timeout)
            if not ended.done():
                self._end(pause, "timeout", "timeout")
        except BaseException:
            if not ended.done():
                self._end(pause, "cancelled", "system")
            raise
        finally:
            resolution = ended.result()
            waiting.tell(resolution)
        return resolution

    def _end(
        self,
        pause: OpenPause,
        decision: PauseDecision,
        by: str,
        *,
        edits: Edits | None = None,
        message: str = "",
    ) -> Resolution:
        waiting = self._waiting.pop(pause.pause_id)
        resolution = Resolution(
            pause_id=pause.pause_id,
            phase=pause.request.phase,
            decision=decision,
            by=by,
            edits=edits or {},
            message=message,
        )
        waiting.ended.set_result(resolution)
        # In one step with the decision: who dies after it has written both or neither. What the
        # log takes no more is for the inference to hear.
        with suppress(StreamStalled):
            waiting.tell(resolution)
        self._ended[pause.pause_id] = resolution
        while len(self._ended) > REMEMBERED_PAUSES:
            del self._ended[next(iter(self._ended))]
        return resolution
