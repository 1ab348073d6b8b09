"""InferenceRunner: one inference from its turn to its one terminal event.

The runner alone emits `InferenceFinished`, in one place, for success, cancel, exception, timeout
and shutdown. The engine runs in a task of its own, so that no engine can swallow the end: one that
does not stop within the grace is abandoned, and what it says later is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args
from uuid import uuid4

import msgspec

from . import events
from .abandoned import ABANDONED
from .engine import Engine, Middleware, chain
from .errors import InferenceFailed, InferenceTimedOut, StreamStalled, WebchatError
from .events import EngineEvent, EventSink, Origin, StopReason, Usage, publishing_to
from .executor import CANCELLED, LoadUser, ToolRun
from .hiding import hiding
from .tool_text import masked
from .toolloop import LoopAborted, Observer, SnapshotPhase, ToolLoop
from .tools import ToolRegistry, ToolSource
from .turns import (
    LlmText,
    Other,
    Outcome,
    Reasoning,
    ToolCall,
    ToolUse,
    Turn,
    mended,
    well_formed,
)

logger = logging.getLogger(__name__)

LEAST_WAIT = 0.001
"""Seconds that are none: a clock need not tell shorter ones apart."""
PAUSE_LOOK = 1.0
"""Seconds between two looks at whether an inference, short of time, still waits for a person."""


class Cancellation:
    """A request to end an inference; made once, and only until the end is decided."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._requested: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decided = False

    @property
    def requested(self) -> bool:
        return self._requested.done()

    def request(self, reason: str | None = None) -> bool:
        """Asks for the end. True: the inference will end as cancelled. False: too late.

        `reason` is the sentence people are shown; the first one counts.
        """
        if self._decided:
            return False
        if not self.requested:
            self.reason = reason
            self._requested.set_result(None)
        return True

    def decide(self) -> bool:
        """From here on the end stands. True if it was requested before."""
        self._decided = True
        return self.requested

    async def wait_with(self, work: asyncio.Future[Any], timeout: float | None) -> None:
        """Returns when `work` is done, the end is requested, or `timeout` seconds have passed."""
        either: set[asyncio.Future[Any]] = {work, self._requested}
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def nobody(owner: str) -> None:
    """The LoadUser of an app without accounts."""


def unkept(turn: Turn) -> None:
    """What is told a final turn that nobody keeps."""


def unobserved(phase: SnapshotPhase, turn: Turn) -> None:
    """The Observer that looks away."""


class InferenceRunner:
    """Runs turns through the tool loop, and each model call through middlewares around one engine.

    Keeps nothing between two runs. Without a loop, an inference is one model call. `tools` may be
    called; of all that are `known`, the secrets are kept. `hidden` are texts that no tool's result
    and no failure's sentence may show.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        middlewares: Sequence[Middleware] = (),
        loop: ToolLoop | None = None,
        tools: ToolSource | None = None,
        known: ToolRegistry | None = None,
        load_user: LoadUser = nobody,
        observer: Observer = unobserved,
        hidden: Collection[str] = (),
        timeout: float | None = None,
        cancel_grace: float = 5.0,
    ) -> None:
        self._engine = engine
        self._middlewares = tuple(middlewares)
        self._loop = loop
        self._tools: ToolSource = ToolRegistry() if tools is None else tools
        self._known = known
        self._load_user = load_user
        self._observer = observer
        self._hidden = hidden
        self._timeout = timeout
        self._cancel_grace = cancel_grace

    @property
    def model(self) -> str:
        return self._engine.model

    async def run(
        self,
        turn: Turn,
        *,
        sink: EventSink,
        cancellation: Cancellation,
        owner: str = "",
        keep: Callable[[Turn], None] = unkept,
    ) -> Turn:
        """The turn with its answer and outcome; its terminal event is in the log by then.

        `turn.metadata.inference_id` names the inference. Raises nothing: what an engine, or the
        log, raised is the outcome `failed`, or is in the server's log. Cancelling this coroutine
        is a shutdown: the inference is ended as cancelled and logged before CancelledError goes
        on. `keep` is told the final turn in the step that publishes the end, however it ended.
        """
        assert turn.metadata.inference_id is not None
        run = _Run(turn, sink, Origin(inference_id=turn.metadata.inference_id, turn_id=turn.id))
        work = asyncio.create_task(
            self._work(run, cancellation, owner), name=f"engine:{turn.metadata.inference_id}"
        )
        torn_down = False
        failure: Exception | None = None
        try:
            await self._wait(run, work, cancellation)
        except asyncio.CancelledError:
            torn_down = True
            cancellation.request("server restarting")
        except Exception as error:
            # Nobody waits for the engine any more, and its end must be told all the same.
            logger.exception("waiting for the engine %s failed", self.model)
            failure = error
        stopped_by_us = not work.done()
        if stopped_by_us:
            torn_down |= await self._stop(work)
        end = self._end(work, cancellation, failure, timed_out=stopped_by_us)
        if end.error:
            end = replace(end, error=masked(end.error, self._hidden))
        final = run.finish(end, self.model)
        keep(final)
        self._observe("final" if end.turn is not None else "failed", final)
        try:
            await sink.flush()
        except StreamStalled as error:
            logger.warning("the log may not have the end of %s: %s", run.inference_id, error)
        except Exception:
            logger.exception("the log may not have the end of %s", run.inference_id)
        if torn_down:
            raise asyncio.CancelledError
        return final

    def give_up(self, turn: Turn, *, sink: EventSink) -> Turn:
        """Writes the end of an inference whose `run` never took its first step."""
        assert turn.metadata.inference_id is not None
        origin = Origin(inference_id=turn.metadata.inference_id, turn_id=turn.id)
        end = _End("cancelled", "cancelled", error="server restarting")
        return _Run(turn, sink, origin).finish(end, self.model)

    async def _work(self, run: _Run, cancellation: Cancellation, owner: str) -> _Done | _Raised:
        async def call_engine(turn: Turn) -> Turn:
            ensure_running()
            run.begin_call(turn, self.model)
            answered = await self._engine.infer(turn)
            if not isinstance(answered, Turn):
                raise TypeError(f"the engine {self.model} returned {answered!r}; expected a Turn")
            answered = mended(answered, known=turn)
            run.end_call(answered)
            return answered

        def ensure_running() -> None:
            if cancellation.requested:
                raise asyncio.CancelledError

        def advance(turn: Turn) -> None:
            run.turn = turn

        def observe(phase: SnapshotPhase, turn: Turn) -> None:
            advance(turn)
            self._observe(phase, turn)

        infer = chain(call_engine, self._middlewares)
        with publishing_to(run), hiding(self._hidden):
            try:
                if self._loop is None:
                    return _Done(await infer(run.turn), "completed")
                tool_run = ToolRun(
                    registry=await self._tools.current(),
                    session_id=run.turn.metadata.session_id,
                    inference_id=run.inference_id,
                    owner=owner,
                    load_user=self._load_user,
                    ensure_running=ensure_running,
                    known=self._known,
                )
                looped = await self._loop.run(run.turn, infer, tool_run, observe, advance)
                return _Done(*looped)
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - SystemExit of an engine is its failure
                return _Raised(error)

    def _observe(self, phase: SnapshotPhase, turn: Turn) -> None:
        try:
            self._observer(phase, turn)
        except Exception:
            logger.exception("a snapshot observer raised at %s", phase)

    async def _wait(
        self, run: _Run, work: asyncio.Future[_Done | _Raised], cancellation: Cancellation
    ) -> None:
        """Returns when the engine is done, told to stop, or out of time; pauses cost it none."""
        while True:
            left = None if self._timeout is None else self._timeout - run.worked
            if left is not None and left < LEAST_WAIT:
                return
            if left is not None and run.pauses:
                left = max(left, PAUSE_LOOK)
            await cancellation.wait_with(work, left)
            if work.done() or cancellation.requested:
                return

    async def _stop(self, work: asyncio.Task[_Done | _Raised]) -> bool:
        """Cancels and waits, for the grace at most. True: this was torn down meanwhile."""
        work.cancel()
        torn_down = False
        try:
            await asyncio.wait({work}, timeout=self._cancel_grace)
        except asyncio.CancelledError:
            # The end is written now, without the rest of the grace.
            torn_down = True
        except Exception:
            logger.exception("waiting for the engine %s to stop failed", self.model)
        if not work.done():
            ABANDONED["engine"] += 1
            logger.error(
                "engine %s did not stop within %s s of its cancellation and was abandoned",
                self.model,
                self._cancel_grace,
            )
        return torn_down

    def _end(
        self,
        work: asyncio.Task[_Done | _Raised],
        cancellation: Cancellation,
        failure: Exception | None,
        *,
        timed_out: bool,
    ) -> _End:
        if cancellation.decide():
            return _End("cancelled", "cancelled", error=cancellation.reason)
        if failure is not None:
            return _failed(failure)
        if timed_out:
            return _failed(
                InferenceTimedOut(
                    f"The answer took longer than {self._timeout:g} seconds and was ended. "
                    "Ask for less at once, or raise WEBCHAT['INFERENCE_TIMEOUT']."
                )
            )
        if work.cancelled():
            return _failed(InferenceFailed("The engine ended itself before its answer was done."))
        result = work.result()
        if isinstance(result, _Done):
            return _End(result.outcome, None, turn=result.turn)
        if isinstance(result.error, LoopAborted):
            return _End("cancelled", "cancelled")
        return _failed(result.error)


@dataclass(frozen=True, slots=True)
class _Done:
    turn: Turn
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


@dataclass(frozen=True, slots=True)
class _End:
    """How an inference ended. `stop_reason` None means: as the model call said."""

    outcome: Outcome
    stop_reason: StopReason | None
    error: str | None = None
    turn: Turn | None = None


def _failed(error: BaseException) -> _End:
    if isinstance(error, InferenceFailed | StreamStalled):
        sentence = str(error)
    else:
        reference = uuid4().hex[:8]
        logger.error("an engine raised (reference %s)", reference, exc_info=error)
        kind = "an error of ours" if isinstance(error, WebchatError) else "an unexpected error"
        sentence = f"The agent failed with {kind}; the server's log has it as {reference}."
    return _End("failed", "error", error=sentence)


class _Run:
    """The sink of one run: stamps events with their origin and remembers the partial answer."""

    def __init__(self, turn: Turn, sink: EventSink, origin: Origin) -> None:
        self.turn = turn
        self._sink = sink
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._started = time.monotonic()
        self.pauses = 0
        """How many wait for a person now."""
        self._since = self._loop.time()
        self._worked = 0.0
        self._text: list[str] = []
        self._began: set[str] = set()
        self._results: dict[str, events.ToolCallFinished] = {}
        self._in_call = False
        self._stop_reason: StopReason = "stop"
        self._usage: Usage | None = None
        self._finished = False
        self._dropped = 0

    @property
    def inference_id(self) -> str:
        return self._origin.inference_id

    @property
    def worked(self) -> float:
        """Seconds that it did not wait for a person."""
        return self._worked + (0 if self.pauses else self._loop.time() - self._since)

    def publish(self, event: EngineEvent) -> None:
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self.publish, event)
            return
        if type(event) is events.TextDelta and self._in_call and not self._finished:
            # Nearly all that is ever published, and the shortest way.
            self._sink.publish(event, self._origin)
            self._text.append(event.text)
            return
        if (
            self._finished
            or not isinstance(event, _ENGINE_EVENTS)
            or (isinstance(event, _OF_A_CALL) and not self._in_call)
        ):
            self._dropped += 1
            return
        # First the log: the history keeps no text that the log refused.
        self._sink.publish(event, self._origin)
        if isinstance(event, events.TextDelta):
            self._text.append(event.text)
        elif isinstance(event, events.ToolCallStarted):
            self._began.add(event.call_id)
        elif isinstance(event, events.ToolCallFinished):
            self._results[event.call_id] = event
        elif isinstance(event, events.PauseOpened | events.PauseClosed):
            self._worked, self._since = self.worked, self._loop.time()
            self.pauses += 1 if isinstance(event, events.PauseOpened) else -1
        elif isinstance(event, events.ModelCallFinished):
            self._in_call = False
            self._stop_reason = event.stop_reason
            if event.usage is not None:
                self._usage = event.usage + (self._usage or Usage())

    def begin_call(self, turn: Turn, model: str) -> None:
        if self._finished:  # an abandoned run asks again
            raise asyncio.CancelledError
        self.turn = turn
        self._text.clear()
        self._in_call = True
        started = events.ModelCallStarted(message_id=str(uuid4()), model=model)
        self._sink.publish(started, self._origin)

    def end_call(self, turn: Turn) -> None:
        self.turn = turn
        try:
            if self._in_call:
                # By the middlewares, as the engine's own would come: they may hold text back.
                events.publish(events.ModelCallFinished())
            if self._in_call:
                self.publish(events.ModelCallFinished())
        finally:
            self._text.clear()

    def finish(self, end: _End, model: str) -> Turn:
        """Publishes the terminal event and returns the turn as the history keeps it."""
        self._finished = True
        if self._dropped:
            logger.warning(
                "%s events published outside of a model call were dropped", self._dropped
            )
        self._sink.publish(
            events.InferenceFinished(
                inference_id=self._origin.inference_id,
                status=end.outcome,
                model=model,
                stop_reason=end.stop_reason or self._stop_reason,
                duration_ms=round((time.monotonic() - self._started) * 1000),
                error=end.error,
                usage=self._usage,
            ),
            self._origin,
        )
        turn = self._answered(end)
        return turn.with_metadata(msgspec.structs.replace(turn.metadata, outcome=end.outcome))

    def _answered(self, end: _End) -> Turn:
        """The turn as providers accept it: the assistant has the last word, and it is not empty."""
        if end.turn is None:
            turn = self._with_results(self.turn)
            text = well_formed("".join(self._text))
            if text.strip():
                return turn.with_blocks(LlmText(text=text, stopped=True))
        else:
            turn = msgspec.structs.replace(end.turn, id=self.turn.id, metadata=self.turn.metadata)
        return with_last_word(turn, end.outcome, stopped=end.turn is None)

    def _with_results(self, turn: Turn) -> Turn:
        """The turn whose calls all have a result: the one they ended with, or `cancelled`."""
        answered = {block.call_id for block in turn.blocks if isinstance(block, ToolUse)}
        uses = []
        for block in turn.blocks:
            if isinstance(block, ToolCall) and block.call_id not in answered:
                ended = self._results.get(block.call_id)
                cut = CANCELLED if block.call_id in self._began else events.NEVER_BEGAN
                uses.append(
                    ToolUse(
                        call_id=block.call_id,
                        text=cut if ended is None else ended.result,
                        status="cancelled" if ended is None else ended.status,
                    )
                )
        return turn.with_blocks(*uses)


_ENGINE_EVENTS = get_args(EngineEvent)
_OF_A_CALL = (
    events.TextDelta,
    events.ThinkingDelta,
    events.ThinkingSummary,
    events.ModelCallFinished,
)
_WHY_NO_WORD: Mapping[Outcome, str] = {
    "completed": "the model said nothing",
    "max_iterations": "the limit of model calls was reached",
    "cancelled": "stopped",
    "failed": "failed",
    "lost": "lost",
}


def with_last_word(turn: Turn, outcome: Outcome, *, stopped: bool) -> Turn:
    """The turn with a text of the assistant at its end: one of NO_ANSWERS where it said nothing."""
    turn = _without_blank_end(turn)
    if _has_last_word(turn):
        return turn
    return turn.with_blocks(LlmText(text=_no_answer(_WHY_NO_WORD[outcome]), stopped=stopped))


def _without_blank_end(turn: Turn) -> Turn:
    """The turn without texts at its end that say nothing: providers refuse them."""
    blocks = turn.blocks
    while blocks and isinstance(blocks[-1], LlmText) and not blocks[-1].text.strip():
        blocks = blocks[:-1]
    return msgspec.structs.replace(turn, blocks=blocks)


def _has_last_word(turn: Turn) -> bool:
    """Whether the model's text is what was said last, whatever it thought after it."""
    for block in reversed(turn.blocks):
        if isinstance(block, LlmText):
            return True
        if not isinstance(block, Reasoning | Other):
            return False
    return False


def _no_answer(why: str) -> str:
    return f"[no answer: {why}]"


NO_ANSWERS = frozenset(_no_answer(why) for why in _WHY_NO_WORD.values())
"""What the history has in the place of an answer without text. It was never shown."""
