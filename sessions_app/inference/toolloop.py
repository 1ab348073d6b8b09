"""The tool loop: model, calls, results, model again, until the model is done.

Every call the model made ends in a result, in the turn and in the stream, whatever happened to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, assert_never
from uuid import uuid4

import msgspec

from .engine import Infer
from .errors import BadEdits
from .events import ToolCallFinished, ToolCallRequested, publish
from .executor import PreparedCall, ToolExecutor, ToolResult, ToolRun, invalid_arguments
from .steps import Edits, PauseRequest, Resolution, StepController
from .tools import MASK, ToolChoice, offering
from .turns import Outcome, ToolCall, ToolUse, Turn

SnapshotPhase: TypeAlias = Literal[
    "pre_inference", "post_inference", "post_tools", "final", "failed"
]
Observer: TypeAlias = Callable[[SnapshotPhase, Turn], None]


class LoopAborted(Exception):
    """A person ended the inference at a pause."""

    def __init__(self, by: str) -> None:
        super().__init__(f"aborted by {by}")
        self.by = by


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Bounds of a loop. Timeouts are seconds."""

    max_iterations: int = 5
    tool_choice: ToolChoice = "auto"
    step_timeout: float = 30.0
    approval_timeout: float = 300.0


class ToolLoop:
    """One kind of loop, for any number of runs. `observe` is told the turn at each phase."""

    def __init__(
        self, executor: ToolExecutor, steps: StepController, *, config: LoopConfig | None = None
    ) -> None:
        self._executor = executor
        self._steps = steps
        self._config = config or LoopConfig()

    async def run(
        self,
        turn: Turn,
        infer: Infer,
        run: ToolRun,
        observe: Observer,
        advance: Callable[[Turn], None],
    ) -> tuple[Turn, Outcome]:
        """The turn with all answers and results; `completed` or `max_iterations`.

        `advance` is told the turn right before calls run, with these as a person left them. Raises
        LoopAborted, ToolAborted, and whatever `infer` raises; the calls that were open then have
        been published as requested and are for the runner to close.
        """
        choice = self._config.tool_choice
        if choice == "none":
            # A model may ask all the same.
            run = run.without_tools()
        for iteration in range(1, self._config.max_iterations + 1):
            observe("pre_inference", turn)
            run.ensure_running()
            # Required once: to be required for ever would leave no turn for the answer.
            required_again = choice == "required" and iteration > 1
            with offering(run.registry, "auto" if required_again else choice):
                answered = await infer(turn)
            turn, calls = adopt(answered, known=turn)
            observe("post_inference", turn)
            for call in calls:
                _publish_requested(call, run)
            if not calls:
                return turn, "completed"
            results: Sequence[ToolResult]
            if iteration == self._config.max_iterations:
                results = [_published(_end(call, "skipped", LIMIT_REACHED)) for call in calls]
            else:
                run = await run.with_user()
                turn, results = await self._results(turn, calls, run, advance)
            turn = turn.with_blocks(*(_use(result) for result in results))
            observe("post_tools", turn)
            if iteration < self._config.max_iterations and self._steps.enabled:
                await self._pause_after_tools(calls, results)
        return turn, "max_iterations"

    async def _results(
        self,
        turn: Turn,
        calls: Sequence[ToolCall],
        run: ToolRun,
        advance: Callable[[Turn], None],
    ) -> tuple[Turn, Sequence[ToolResult]]:
        """The turn with the calls as they ran, and one result for each call, in call order."""
        prepared = []
        for call in calls:
            run.ensure_running()
            prepared.append(await self._executor.prepare(call, run))
        closed = {p.call_id: _published(p) for p in prepared if isinstance(p, ToolResult)}
        pending = [p for p in prepared if isinstance(p, PreparedCall)]
        if pending:
            allowed, refused = await self._agreed(pending, run)
            closed |= {result.call_id: _published(result) for result in refused}
            run.ensure_running()
            if allowed:
                turn = _with_calls(turn, [prepared.call for prepared in allowed])
                advance(turn)
                results = await self._executor.execute(allowed, run)
                closed |= {result.call_id: result for result in results}
        return turn, [closed[call.call_id] for call in calls]

    async def _agreed(
        self, pending: Sequence[PreparedCall], run: ToolRun
    ) -> tuple[Sequence[PreparedCall], Sequence[ToolResult]]:
        """The calls that may run, and results for those that may not, after a pause if one is due.

        A call that a person agreed to carries the digest of exactly what was shown, or edited. One
        that needs an approval only since it was edited is asked for on its own: whoever edits a
        step need not be who may approve.
        """
        needing = {
            call.call.call_id for call in pending if call.tool.needs_approval(call.arguments)
        }
        if not needing and not self._steps.enabled:
            return pending, ()
        seen = {call.call.call_id: call.digest for call in pending}
        resolution = await self._steps.pause(self._before_tools(pending, needing))
        allowed, refused = await self._decided(pending, needing, resolution, run)
        agreed: list[PreparedCall] = []
        unasked: list[PreparedCall] = []
        for call in allowed:
            edited = call.call.call_id in resolution.edits
            if call.call.call_id in needing:
                digest = call.digest if edited else seen[call.call.call_id]
                agreed.append(replace(call, agreed=digest))
            elif edited and call.tool.needs_approval(call.arguments):
                unasked.append(call)
            else:
                agreed.append(call)
        if not unasked:
            return agreed, refused
        later, denied = await self._agreed(unasked, run)
        by_id = {call.call.call_id: call for call in (*agreed, *later)}
        ids = [call.call.call_id for call in pending]
        return [by_id[id] for id in ids if id in by_id], [*refused, *denied]

    async def _decided(
        self,
        pending: Sequence[PreparedCall],
        needing: set[str],
        resolution: Resolution,
        run: ToolRun,
    ) -> tuple[Sequence[PreparedCall], Sequence[ToolResult]]:
        match resolution.decision:
            case "continue" | "disabled":
                return pending, ()
            case "edit":
                edited = [await self._edited(call, resolution.edits, run) for call in pending]
                return (
                    [call for call in edited if isinstance(call, PreparedCall)],
                    [result for result in edited if isinstance(result, ToolResult)],
                )
            case "skip":
                message = resolution.message or "A person chose not to run this call."
                return (), [_end(call.call, "skipped", message) for call in pending]
            case "timeout":
                return (
                    [call for call in pending if call.call.call_id not in needing],
                    [
                        _end(call.call, "denied", "Nobody agreed to this call in time.")
                        for call in pending
                        if call.call.call_id in needing
                    ],
                )
            case "abort" | "cancelled":
                raise LoopAborted(resolution.by)
            case _:
                assert_never(resolution.decision)

    async def _edited(
        self, call: PreparedCall, edits: Edits, run: ToolRun
    ) -> PreparedCall | ToolResult:
        arguments = edits.get(call.call.call_id)
        if arguments is None:
            return call
        changed = msgspec.structs.replace(call.call, arguments=unmasked(call, arguments))
        return await self._executor.prepare(changed, run)

    def _before_tools(self, pending: Sequence[PreparedCall], needing: set[str]) -> PauseRequest:
        def validate(edits: Edits) -> None:
            by_id = {call.call.call_id: call for call in pending}
            for call_id, arguments in edits.items():
                if call_id not in by_id:
                    raise BadEdits(f"no call {call_id[:80]!r} waits at this pause")
                call = by_id[call_id]
                problem = invalid_arguments(call.tool, unmasked(call, arguments))
                if problem is not None:
                    raise BadEdits(problem)

        names = ", ".join(call.tool.name for call in pending)
        config = self._config
        return PauseRequest(
            phase="after_inference",
            summary=f"About to run {names}",
            approval=bool(needing),
            on_timeout="deny" if needing else "continue",
            timeout=config.approval_timeout if needing else config.step_timeout,
            validate=validate,
            permissions=frozenset(
                call.tool.approval_permission
                for call in pending
                if call.call.call_id in needing and call.tool.approval_permission
            ),
            extra={
                "toolCalls": [
                    {
                        "id": call.call.call_id,
                        "name": call.tool.name,
                        "input": call.shown,
                        "needsApproval": call.call.call_id in needing,
                    }
                    for call in pending
                ]
            },
        )

    async def _pause_after_tools(
        self, calls: Sequence[ToolCall], results: Sequence[ToolResult]
    ) -> None:
        def validate(edits: Edits) -> None:
            raise BadEdits("these calls have run; there is nothing left to edit")

        resolution = await self._steps.pause(
            PauseRequest(
                phase="after_tools",
                summary=f"{len(results)} result{'s' if len(results) != 1 else ''} for the model",
                on_timeout="continue",
                timeout=self._config.step_timeout,
                validate=validate,
                extra={
                    "results": [
                        {
                            "id": result.call_id,
                            "name": call.name[:NAME_CHARS],
                            "status": result.status,
                            "result": result.text[:RESULT_PREVIEW_CHARS],
                        }
                        for call, result in zip(calls, results, strict=True)
                    ]
                },
            )
        )
        if resolution.decision in ("abort", "cancelled"):
            raise LoopAborted(resolution.by)


RESULT_PREVIEW_CHARS = 2000
NAME_CHARS = 128
"""Of a name that a model made up, which may be of any length."""
USABLE_ID = re.compile(r"[^\s:]{1,256}")
"""A colon stands between the id of a call and what belongs to it."""
LIMIT_REACHED = "Not run: the limit of model calls for one prompt was reached."


def adopt(answered: Turn, *, known: Turn) -> tuple[Turn, Sequence[ToolCall]]:
    """The turn with its new calls under ids of their own, and those calls.

    A provider's id is kept where the conversation has not seen it yet; one that is repeated, empty
    or cannot be an id here is replaced, and the provider still gets its own back.
    """
    old = {block.id for block in known.blocks}
    seen = {block.call_id for block in known.blocks if isinstance(block, ToolCall)}
    given: set[str] = set()
    blocks = []
    calls = []
    for block in answered.blocks:
        if isinstance(block, ToolCall) and block.id not in old:
            provider_id = block.provider_id or block.call_id
            call_id = block.call_id
            if call_id in seen or not USABLE_ID.fullmatch(call_id):
                call_id = f"call_{uuid4().hex}"
            # Two calls of one answer under one id could not be answered apart.
            if not provider_id or provider_id in given:
                provider_id = call_id
            seen.add(call_id)
            given.add(provider_id)
            block = msgspec.structs.replace(block, call_id=call_id, provider_id=provider_id)
            calls.append(block)
        blocks.append(block)
    return msgspec.structs.replace(answered, blocks=tuple(blocks)), calls


def _with_calls(turn: Turn, ran: Sequence[ToolCall]) -> Turn:
    """The turn that has these calls in the place of the ones of their ids.

    A model that is told what became of arguments it never wrote would explain a mistake of ours.
    """
    by_id = {call.id: call for call in ran}
    blocks = tuple(by_id.get(block.id, block) for block in turn.blocks)
    return msgspec.structs.replace(turn, blocks=blocks)


def unmasked(call: PreparedCall, edited: Any) -> dict[str, Any]:
    """Edited arguments, with what was shown masked and left so put back as the model gave it.

    What an app had put in beside that is left out: it puts it in again.
    """
    asked = call.call.arguments
    given: Any = asked if isinstance(asked, dict) else {}
    masked = call.tool.secrets | call.hidden
    kept = {}
    for name, value in edited.items():
        if value != MASK or name not in masked:
            kept[name] = value
        elif name in given:
            kept[name] = given[name]
    return kept


def _publish_requested(call: ToolCall, run: ToolRun) -> None:
    publish(
        ToolCallRequested(
            call_id=call.call_id,
            name=call.name[:NAME_CHARS],
            input=run.shown(call.name, call.arguments),
        )
    )


def _end(call: ToolCall, status: Any, text: str) -> ToolResult:
    return ToolResult(call_id=call.call_id, status=status, text=text)


def _published(result: ToolResult) -> ToolResult:
    publish(
        ToolCallFinished(
            call_id=result.call_id,
            result=result.text,
            status=result.status,
            custom_kind=result.custom_kind,
            duration_ms=0,
        )
    )
    return result


def _use(result: ToolResult) -> ToolUse:
    return ToolUse(call_id=result.call_id, text=result.text, status=result.status)
