"""Every await of a program, one after the other: meet each, and do something there.

    told = awaits_of(story)                      # how many there are, and where
    for number in range(1, len(told) + 1):
        meet(story, number, act)                 # again, with `act` at that one

`story` is a coroutine function that drives the program and looks at what came of it. It runs on a
loop of its own in virtual time, so each run is the same up to what `act` changes. It must leave no
task, and no failure that nobody heard of. Counted are the awaits of all tasks (when they are made,
and each time they stop to wait) but the story's own, and those of a name that begins with `story`.

What `act` may do where a task stopped: anything that does not wait (cancel something, drop a
socket, start a task), and besides that return what is done to the task itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

import async_solipsism

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Story: TypeAlias = Callable[[], Coroutine[Any, Any, T]]

_THREAD = ThreadPoolExecutor(1)
HOME = Path(__file__).parent.parent
THREAD_SECONDS = 1.0
"""How long, in virtual time, whatever runs in a thread takes."""
LONGEST_STORY = 1000.0
"""Virtual seconds after which a story hangs."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The place where a task stopped. `begun` is False where it was only made."""

    number: int
    task: asyncio.Task[Any]
    begun: bool
    where: str

    def __str__(self) -> str:
        return f"await {self.number}, {self.task.get_name()} {self.where}"


@dataclass(frozen=True, slots=True)
class Throw:
    """What the task waits for raises `error`: at once, or `when_back` when it is there."""

    error: BaseException
    when_back: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """The task hears of what it waits for that much later; everybody else goes first."""

    seconds: float = 0.001


Act: TypeAlias = Callable[[Moment], Throw | Hold | None]


def awaits_of(story: Story[Any]) -> Sequence[str]:
    """Where the tasks of the story stop when nothing is done to them."""
    told: list[str] = []
    _play(story, lambda moment: told.append(str(moment)))
    return told


def meet(story: Story[T], number: int, act: Act) -> T:
    """Runs the story with `act` at its await of that number."""
    return _play(story, lambda moment: act(moment) if moment.number == number else None)


def _play(story: Story[T], act: Act) -> T:
    return run_on(AwaitLoop(act), story)


def run_on(loop: AwaitLoop, story: Story[T]) -> T:
    """The story's result. It fails where it leaves a task, or a failure that nobody heard of."""
    random.seed(0)  # back-off has jitter
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(_in_time(story))
        left = [task for task in loop.tasks if not task.done()]
        assert not left, f"the story left tasks behind: {left}"
    unheard = [task for task in loop.tasks if getattr(task, "_log_traceback", False)]
    assert not unheard, f"nobody heard of how these ended: {unheard}"
    assert not loop.troubles, loop.troubles
    return result


async def _in_time(story: Story[T]) -> T:
    async with asyncio.timeout(LONGEST_STORY):
        return await story()


class AwaitLoop(async_solipsism.EventLoop):
    """A loop in virtual time that calls `act` wherever one of its tasks stops.

    A thread is a second of that time, in which the loop stands still: what it reports comes in
    order. It cannot be stopped, as a real one cannot.
    """

    def __init__(self, act: Act) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # it ships no types
        self._act = act
        self._count = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.troubles: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, trouble: self.troubles.append(trouble))
        self._main: asyncio.Task[Any] | None = None

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        watched = _Watched(coro, self)
        task: asyncio.Task[Any] = super().create_task(watched, **options)
        watched.task = task
        self.tasks.append(task)
        if self._main is None:
            self._main = task
        self.stopped(watched, begun=False)
        return task

    def stopped(self, watched: _Watched, *, begun: bool) -> Throw | Hold | None:
        """Tells of a task that stopped, or was made; returns what is done to it."""
        task, main = watched.task, self._main
        # Once the story is over, the loop's own tasks end what is left.
        if main is None or main.done() or task is main or task.get_name().startswith("story"):
            return None
        self._count += 1
        return self._act(Moment(self._count, task, begun, _place(watched.coro)))

    def run_in_executor(  # type: ignore[override] # the one above is a coroutine, asyncio's is not
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                result = (executor or _THREAD).submit(func, *args).result()
            except BaseException as error:  # noqa: BLE001 - it is the future's to tell
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(THREAD_SECONDS, run)
        return future

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        # The loop stands still while a thread of its own runs: nothing to guard.
        return self.call_soon(callback, *args, context=context)


class _Watched(Coroutine[Any, Any, Any]):
    """The coroutine of a task, between it and the loop."""

    task: asyncio.Task[Any]

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: AwaitLoop) -> None:
        self.coro = coro
        self._loop = loop
        self._error: BaseException | None = None
        self._held: Any = None
        self._holding = False

    def send(self, value: Any) -> Any:
        if self._holding:
            self._holding = False
            return self._held
        if self._error is not None:
            error, self._error = self._error, None
            return self._stopped(self.coro.throw(error))
        return self._stopped(self.coro.send(value))

    def throw(self, *error: Any) -> Any:
        if self._holding:
            self._holding = False
            if self._held is not None and self._held.cancel():
                return self._held
        self._error = None
        return self._stopped(self.coro.throw(*error))

    def close(self) -> None:
        self.coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.coro.__await__()

    def _stopped(self, waits_for: Any) -> Any:
        match self._loop.stopped(self, begun=True):
            case Throw(error, when_back):
                if not when_back:
                    return self._stopped(self.coro.throw(error))
                self._error = error
            case Hold(seconds):
                self._holding, self._held = True, waits_for
                later = self._loop.create_future()
                self._loop.call_later(seconds, _wake, later)
                later._asyncio_future_blocking = True
                return later
            case None:
                pass
        return waits_for


def _wake(later: asyncio.Future[None]) -> None:
    if not later.done():
        later.set_result(None)


def _place(coro: Any) -> str:
    """The innermost line of ours that waits."""
    place = ""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None)
        if frame is None:
            break
        ours = _ours(frame.f_code.co_filename)
        if ours:
            place = f"{ours}:{frame.f_lineno} {frame.f_code.co_name}"
        coro = coro.cr_await
    return place


@cache
def _ours(file: str) -> str:
    """Where in the project the file is; "" outside of it."""
    path = Path(file)
    inside = path.is_relative_to(HOME) and ".venv" not in path.parts
    return str(path.relative_to(HOME)) if inside else ""
