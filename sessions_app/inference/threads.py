"""Threads for tools that are plain functions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(Executor):
    """At most `limit` threads, started when needed; what finds none free waits in a row.

    They are daemons: a tool that hangs holds up its thread, but never the end of the process, as
    the standard library's pool would.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self.limit = limit
        self._name = name
        self._lock = Lock()
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._started = 0
        self._free = 0
        """Threads that stand at the queue, less the work that lies in it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Never waits. The future can be cancelled until a thread has taken it up."""
        future: Future[T] = Future()
        self._work.put((future, lambda: fn(*args, **kwargs)))
        with self._lock:
            self._free -= 1
            if self._free < 0 and self._started < self.limit:
                self._started += 1
                self._free += 1
                Thread(
                    target=self._serve, name=f"{self._name}-{self._started}", daemon=True
                ).start()
        return future

    def _serve(self) -> None:
        while True:
            future, work = self._work.get()
            end = _run(work) if future.set_running_or_notify_cancel() else None
            # Before the end is told: who hears of it may have more work, and finds this thread.
            with self._lock:
                self._free += 1
            if end is not None:
                end(future)
            # What is done must not be kept alive while the thread waits for more.
            del future, work, end


def _run(work: Callable[[], Any]) -> Callable[[Future[Any]], None]:
    """Does the work; what is returned tells a future how it ended."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - it is the future's to tell
        failure = error
        return lambda future: future.set_exception(failure)
    return lambda future: future.set_result(result)
