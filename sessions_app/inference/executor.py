"""ToolExecutor: from a call the model asked for to a result it can read, whatever happens."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import hashlib
import inspect
import json
import logging
import random
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for
from referencing import Registry

from .abandoned import ABANDONED
from .errors import InferenceFailed, ToolDenied, ToolError
from .events import NEVER_BEGAN, ToolCallFinished, ToolCallStarted, ToolProgress, publish
from .threads import DaemonThreads
from .tool_text import as_text, bounded, without_secrets
from .tools import MASK, Arguments, Tool, ToolContext, ToolRegistry
from .traces import log_masked
from .turns import ToolCall, ToolStatus

logger = logging.getLogger(__name__)

RESULT_MAX_BYTES = 64 * 1024
ABANDON_SECONDS = 0.5
CANCELLED = "Cancelled before its end; the outcome is unknown."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What the model is given back for one call."""

    call_id: str
    status: ToolStatus
    text: str
    custom_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCall:
    """A call that may run: known, authorised, its arguments final and valid.

    `hidden` names the arguments that are not as the model gave them: what an app puts in (who asks,
    say) is shown like a secret. `agreed` is the digest of the call that a person agreed to.
    """

    call: ToolCall
    tool: Tool
    arguments: Arguments
    hidden: frozenset[str] = frozenset()
    agreed: str | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """The arguments as people may see them."""
        masked = self.tool.masked(self.arguments)
        return {name: MASK if name in self.hidden else value for name, value in masked.items()}

    def without_secrets(self, text: str) -> str:
        """`text` with what people may not see masked."""
        return without_secrets(text, self.tool, self.arguments, hidden=self.hidden)

    def with_arguments(self, arguments: Arguments) -> PreparedCall:
        """The call with other arguments than the model gave."""
        given = self.call.arguments
        asked: Arguments = given if isinstance(given, dict) else {}
        changed = (n for n, value in arguments.items() if n not in asked or asked[n] != value)
        return dataclasses.replace(self, arguments=arguments, hidden=frozenset(changed))

    @property
    def digest(self) -> str:
        """Names exactly this call; an approval is bound to it."""
        told = json.dumps([self.tool.name, dict(self.arguments)], sort_keys=True, default=repr)
        return hashlib.sha256(told.encode()).hexdigest()


LoadUser: TypeAlias = Callable[[str], Awaitable[object | None]]
"""From an owner to whatever the app knows a person by; None for a visitor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """For whom and with which tools calls are executed.

    `registry` is the allow list; `known` are all tools there are, whose secrets are kept also where
    they may not be called. `ensure_running` raises CancelledError when the inference was told to
    stop; a thread may ask it too. `load_user` is asked for the `user` before the first call.
    """

    registry: ToolRegistry
    session_id: str
    inference_id: str
    owner: str
    user: object | None = None
    ensure_running: Callable[[], None]
    known: ToolRegistry | None = None
    load_user: LoadUser | None = None

    async def with_user(self) -> ToolRun:
        """The same run with its user; an answer that calls no tool never asks for them."""
        if self.load_user is None:
            return self
        return dataclasses.replace(self, user=await self.load_user(self.owner), load_user=None)

    def without_tools(self) -> ToolRun:
        """The same run, in which no tool may be called."""
        return dataclasses.replace(self, registry=ToolRegistry(), known=self.known or self.registry)

    def shown(self, name: str, arguments: dict[str, Any] | str) -> dict[str, Any] | str:
        """What a model gave for the arguments of `name`, as it may be shown."""
        if self.known is None or self.registry.knows(name):
            return self.registry.shown(name, arguments)
        return self.known.shown(name, arguments)

    def context(self, call_id: str, take: Callable[[ToolProgress], None] = publish) -> ToolContext:
        """What a tool is given. `take` is told its progress, in this loop and this context."""
        loop = asyncio.get_running_loop()
        in_this_context = contextvars.copy_context()

        def report(progress: ToolProgress) -> None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:  # the thread of a sync tool
                loop.call_soon_threadsafe(in_this_context.run, take, progress)
            else:
                # A task that serves many conversations may report: its own context is none's.
                in_this_context.run(take, progress)

        return ToolContext(
            report=report,
            session_id=self.session_id,
            inference_id=self.inference_id,
            call_id=call_id,
            owner=self.owner,
            user=self.user,
        )


class ToolExecutor(Protocol):
    """Injected into the tool loop. Neither verb raises for what a tool or a model does wrong."""

    async def prepare(self, call: ToolCall, run: ToolRun) -> PreparedCall | ToolResult:
        """The call ready to run, or the result that says why it will not."""

    async def execute(self, calls: Sequence[PreparedCall], run: ToolRun) -> Sequence[ToolResult]:
        """Runs the calls; results in call order. Publishes the start and end of each.

        Right before it runs, a call whose digest is not the one `agreed` to is denied. Raises
        ToolAborted when a tool whose policy is `abort` failed. Cancelling it cancels the calls,
        each of which is still closed.
        """


class ToolAborted(InferenceFailed):
    """A tool with the policy `abort` failed; `results` are those of all calls, in call order."""

    code = "tool_aborted"

    def __init__(self, message: str, results: Sequence[ToolResult]) -> None:
        super().__init__(message)
        self.results = results


PreExecute: TypeAlias = Callable[[PreparedCall, ToolContext], Awaitable[Arguments | None]]
"""May return other arguments, or raise ToolDenied; None leaves them.

Arguments that are not the model's are shown to nobody, and validated like its own.
"""

PostExecute: TypeAlias = Callable[[PreparedCall, ToolResult, ToolContext], Awaitable[ToolResult]]


class DefaultToolExecutor:
    """Validates, authorises, masks, times out, retries, bounds parallelism and size.

    A subclass overrides `authorise` to ask for permissions. Sync tools run in a pool of threads;
    the result of one that is late is thrown away.
    """

    def __init__(
        self,
        *,
        parallel: int = 3,
        threads: int = 16,
        result_max_bytes: int = RESULT_MAX_BYTES,
        backoff_seconds: float = 0.5,
        pre_execute: Sequence[PreExecute] = (),
        post_execute: Sequence[PostExecute] = (),
    ) -> None:
        self._parallel = parallel
        self._threads = DaemonThreads(threads, name="webchat-tool")
        self._in_thread: dict[int, str] = {}
        """The names of the threads that a call has not yet returned from, by the call's id()."""
        self._result_max_bytes = result_max_bytes
        self._backoff = backoff_seconds
        self._pre_execute = tuple(pre_execute)
        self._post_execute = tuple(post_execute)

    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        """Raises ToolDenied when the conversation's user may not make this call. Here all may."""

    def call_sync(self, tool: Tool, arguments: Arguments, context: ToolContext) -> object:
        """Calls a sync tool, in its thread. For a subclass to put something around it."""
        return tool.call(arguments, context)

    async def prepare(self, call: ToolCall, run: ToolRun) -> PreparedCall | ToolResult:
        tool = run.registry.get(call.name)
        if tool is None:
            return _end(call, "error", run.registry.unknown(call.name[:80]))
        if not isinstance(call.arguments, dict):
            return _end(
                call, "error", f"the arguments of {tool.name} are not a JSON object; send one"
            )
        problem = invalid_arguments(tool, call.arguments)
        if problem is not None:
            return _end(call, "error", problem)
        prepared = PreparedCall(call=call, tool=tool, arguments=call.arguments)
        context = run.context(call.call_id)
        try:
            # A hook may write into what it is given: the model's own stays in the history.
            prepared = dataclasses.replace(prepared, arguments=deepcopy(call.arguments))
            for hook in self._pre_execute:
                replaced = await hook(prepared, context)
                prepared = prepared.with_arguments(
                    prepared.arguments if replaced is None else dict(replaced)
                )
            problem = invalid_arguments(tool, prepared.arguments, private=bool(prepared.hidden))
            if problem is not None:
                return _end(call, "error", problem)
            await self.authorise(tool, prepared.arguments, context)
        except _NOT_A_FAILURE:
            raise
        except BaseException as error:  # noqa: BLE001 - an app's hook; its failure is a result
            return self._failed(prepared, error)
        return prepared

    async def execute(self, calls: Sequence[PreparedCall], run: ToolRun) -> Sequence[ToolResult]:
        batch = _Batch()
        places = asyncio.Semaphore(self._parallel)
        aborted: list[str] = []

        async def one(call: PreparedCall) -> None:
            try:
                async with places:
                    run.ensure_running()
                    batch.take(call)
                    result = await self._result(call, run, batch)
                    batch.close(call, result)
            finally:
                batch.cancel(call)
            if call.tool.on_error == "abort" and result.status in ("error", "timeout"):
                aborted.append(call.tool.name)
                for task in tasks:
                    if task is not asyncio.current_task():
                        task.cancel()

        tasks = [asyncio.create_task(one(call), name=f"tool:{call.call.call_id}") for call in calls]
        try:
            await _all_of(tasks)
        finally:
            # A second cancellation waits for nobody: what is still open ends here.
            for call in calls:
                batch.cancel(call)
        in_order = [batch.results[call.call.call_id] for call in calls]
        if aborted:
            raise ToolAborted(
                f"The tool {aborted[0]} failed, and this agent stops at such a failure.", in_order
            )
        return in_order

    async def _result(self, call: PreparedCall, run: ToolRun, batch: _Batch) -> ToolResult:
        """The result after as many attempts as the tool's policy allows."""

        def report(progress: ToolProgress) -> None:
            if batch.is_open(call):
                publish(dataclasses.replace(progress, note=call.without_secrets(progress.note)))

        context = run.context(call.call.call_id, report)
        try:
            await self.authorise(call.tool, call.arguments, context)
        except _NOT_A_FAILURE:
            raise
        except BaseException as error:  # noqa: BLE001 - an app's; its failure is a result
            return self._failed(call, error)
        run.ensure_running()
        if call.agreed not in (None, call.digest):
            return _end(call.call, "denied", "Its arguments changed after it was agreed to.")
        batch.begin(call)
        attempts = call.tool.attempts if call.tool.on_error == "retry" else 1
        result = await self._attempt(call, run, context)
        for attempt in range(1, attempts):
            if result.status not in ("error", "timeout"):
                break
            context.progress(note=f"attempt {attempt} of {attempts} failed")
            jitter = random.uniform(0.5, 1)  # noqa: S311 - spreads retries, guards nothing
            await asyncio.sleep(self._backoff * 2 ** (attempt - 1) * jitter)
            run.ensure_running()
            result = await self._attempt(call, run, context)
        return await self._after_hooks(call, result, context)

    async def _after_hooks(
        self, call: PreparedCall, result: ToolResult, context: ToolContext
    ) -> ToolResult:
        try:
            for hook in self._post_execute:
                result = await hook(call, result, context)
            # What a hook returns goes into frames and the history: it must be what it says it is.
            result = msgspec.convert(msgspec.to_builtins(result), ToolResult)
            return dataclasses.replace(
                result, call_id=call.call.call_id, text=self._shown(result.text, call)
            )
        except _NOT_A_FAILURE:
            raise
        except BaseException as error:  # noqa: BLE001 - an app's hook; its failure is a result
            return self._failed(call, error)

    async def _attempt(self, call: PreparedCall, run: ToolRun, context: ToolContext) -> ToolResult:
        """One attempt. What does not stop when it must is abandoned, its late result unread."""
        tool = call.tool
        context = dataclasses.replace(context, cancel=threading.Event())
        work = asyncio.create_task(self._call(call, run, context), name=f"call:{call.call.call_id}")
        late = True
        try:
            await asyncio.wait({work}, timeout=tool.timeout)
            late = not work.done()
        finally:
            if not work.done():
                context.cancel.set()
                work.cancel()
                await asyncio.wait({work}, timeout=ABANDON_SECONDS)
            if not work.done():
                ABANDONED["tool"] += 1
                logger.error("tool %s ignored its cancellation and was abandoned", tool.name)
        if late:
            sentence = f"{tool.name} did not answer within {tool.timeout:g} seconds"
            return _end(call.call, "timeout", sentence)
        if work.cancelled():
            run.ensure_running()
            return _end(call.call, "error", f"{tool.name} ended itself before it had a result")
        return work.result()

    async def _call(self, call: PreparedCall, run: ToolRun, context: ToolContext) -> ToolResult:
        if not call.tool.is_async:
            in_context = contextvars.copy_context().run
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, in_context, self._call_in_thread, call, run, context
                )
            except asyncio.CancelledError:
                if (thread := self._in_thread.get(id(call))) is not None:
                    ABANDONED["thread"] += 1
                    logger.error(
                        "tool %s did not return from its thread %s and was abandoned; "
                        "calls of tools hold %d of %d threads",
                        call.tool.name,
                        thread,
                        len(self._in_thread),
                        self._threads.limit,
                    )
                raise
        run.ensure_running()
        try:
            value = call.tool.call(call.arguments, context)
            if inspect.isawaitable(value):
                value = await value
            return _end(call.call, "success", as_text(value))
        except _NOT_A_FAILURE:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit of a tool is its failure
            return self._failed(call, error)

    def _call_in_thread(self, call: PreparedCall, run: ToolRun, context: ToolContext) -> ToolResult:
        """Raises nothing: a StopIteration, say, could not leave the thread through a future."""
        try:
            run.ensure_running()
        except asyncio.CancelledError:
            return _end(call.call, "cancelled", CANCELLED)
        self._in_thread[id(call)] = threading.current_thread().name
        try:
            value = self.call_sync(call.tool, call.arguments, context)
            return _end(call.call, "success", as_text(value))
        except BaseException as error:  # noqa: BLE001 - a KeyboardInterrupt here is the tool's own
            return self._failed(call, error)
        finally:
            del self._in_thread[id(call)]

    def _failed(self, call: PreparedCall, error: BaseException) -> ToolResult:
        """What the model reads of a failure: a ToolError's own sentence, else only a reference."""
        name = call.tool.name
        if isinstance(error, ToolDenied):
            return _end(call.call, "denied", self._shown(str(error), call))
        if isinstance(error, ToolError | msgspec.ValidationError):
            return _end(call.call, "error", self._shown(f"{name} failed: {error}", call))
        reference = uuid4().hex[:8]
        trace = "".join(traceback.format_exception(error))
        log_masked(
            logger, call.without_secrets(trace), "tool %s raised (reference %s)", name, reference
        )
        sentence = f"{name} failed unexpectedly; the server's log has it as {reference}"
        return _end(call.call, "error", sentence)

    def _shown(self, text: str, call: PreparedCall) -> str:
        """`text` without the call's secrets, and not longer than a result may be."""
        return bounded(call.without_secrets(text), self._result_max_bytes)


_NOT_A_FAILURE = (asyncio.CancelledError, KeyboardInterrupt)
"""What nobody may take for the failure of a tool or a hook."""


class _Batch:
    """The calls of one `execute`. Closes each once, in the stream and among the results."""

    def __init__(self) -> None:
        self.results: dict[str, ToolResult] = {}
        self._taken: dict[str, float] = {}
        self._began: set[str] = set()

    def is_open(self, call: PreparedCall) -> bool:
        return call.call.call_id not in self.results

    def take(self, call: PreparedCall) -> None:
        """It has a place; from now on its time is counted."""
        self._taken[call.call.call_id] = time.monotonic()

    def begin(self, call: PreparedCall) -> None:
        """From now on nobody can say that it did nothing."""
        self._began.add(call.call.call_id)
        publish(ToolCallStarted(call_id=call.call.call_id, input=call.shown))

    def cancel(self, call: PreparedCall) -> None:
        """Closes it, if nothing has, as a call that its inference took along."""
        text = CANCELLED if call.call.call_id in self._began else NEVER_BEGAN
        self.close(call, _end(call.call, "cancelled", text))

    def close(self, call: PreparedCall, result: ToolResult) -> None:
        """The first end of a call counts."""
        call_id = call.call.call_id
        if call_id in self.results:
            return
        self.results[call_id] = result
        now = time.monotonic()
        publish(
            ToolCallFinished(
                call_id=call_id,
                result=result.text,
                status=result.status,
                custom_kind=result.custom_kind,
                duration_ms=round((now - self._taken.get(call_id, now)) * 1000),
            )
        )


async def _all_of(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Returns when all tasks have ended, cancelled ones too.

    When one raises, or this is cancelled, the others are cancelled and waited for first.
    """
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        if pending := [task for task in tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
        raised = [task.exception() for task in tasks if not task.cancelled()]
    for error in filter(None, raised):
        raise error


def invalid_arguments(tool: Tool, arguments: Arguments, *, private: bool = False) -> str | None:
    """One sentence the model can mend its call by; None when the arguments fit the schema.

    It repeats no argument where the tool has secrets, or the arguments are `private`.
    """
    try:
        validator = validator_for(tool.parameters, default=Draft202012Validator)
        # The empty registry: a schema of somebody else's must not make us fetch an address.
        error = best_match(validator(tool.parameters, registry=Registry()).iter_errors(arguments))
    except Exception as broken:
        # A schema that is none, or arguments nested too deep to walk.
        logger.exception("the arguments of tool %s could not be checked", tool.name)
        return f"the arguments of {tool.name} cannot be checked: {type(broken).__name__}"
    if error is None:
        return None
    where = error.json_path.removeprefix("$").removeprefix(".") or "arguments"
    quiet = private or tool.secrets
    said = f"does not fit {error.validator}" if quiet else error.message
    return f"invalid arguments for {tool.name}: {where}: {said[:500]}"


def _end(call: ToolCall, status: ToolStatus, text: str) -> ToolResult:
    return ToolResult(call_id=call.call_id, status=status, text=text)
