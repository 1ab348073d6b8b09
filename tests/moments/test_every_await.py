"""Whatever is done at whichever await, every inference ends once, after all that it opened.

One story goes the whole way: a prompt with thinking, text, tools (async, in a thread, tried again,
refused, agreed to), a pause before and after them, its writer, its log and its persister; a second
prompt waits behind it, and a third is asked when all is over. A hook plays it once for each place
where any of its tasks waits, and does something there: nothing is sampled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sessions_app.execution import ExecutionHandle
from sessions_app.inference.errors import Draining, ToolError
from sessions_app.inference.events import ModelCallFinished, ThinkingDelta
from sessions_app.inference.executor import DefaultToolExecutor, PreparedCall, ToolResult
from sessions_app.inference.tools import Arguments, Tool, ToolContext, tool
from sessions_app.inference.turns import User
from sessions_app.session import Session
from sessions_app.store import StoredConversation
from sessions_app.testing import Sleep
from sessions_app.values import Queued
from tests.awaits import Hold, Moment, Throw, awaits_of, meet
from tests.moments.bench import ANNA, CONV, Bench, call, ends, model, of
from tests.rules import Frame


class Boom(Exception):
    """What nobody expects."""


class Slow(DefaultToolExecutor):
    """Asks somebody far away whether a call may be made, before it and after it."""

    def __init__(self) -> None:
        super().__init__(pre_execute=[self._before], post_execute=[self._after])

    async def authorise(self, tool: Tool, arguments: Arguments, context: ToolContext) -> None:
        await asyncio.sleep(0.01)

    async def _before(self, call: PreparedCall, context: ToolContext) -> None:
        await asyncio.sleep(0.01)

    async def _after(
        self, call: PreparedCall, result: ToolResult, context: ToolContext
    ) -> ToolResult:
        await asyncio.sleep(0.01)
        return result


EXECUTOR = Slow()
"""One for all stories: it keeps nothing but its threads."""


async def load_user(owner: str) -> None:
    await asyncio.sleep(0.01)


async def persist(conversation: StoredConversation) -> None:
    await asyncio.sleep(0.01)


class Story:
    """One run. `stopping` is the manager's end, if the run brought it about."""

    bench: Bench

    def __init__(self) -> None:
        self.stopping: asyncio.Task[None] | None = None
        self.stopped: set[str] = set()
        """Inferences that were told to stop, and will."""
        self.started_late: list[str] = []
        """What began in such an inference after that."""
        self.decided: dict[str, str] = {}
        """What a person was answered at each pause."""
        self.interrupting: asyncio.Task[None] | None = None
        self.interrupted: str | None = None
        self.main: asyncio.Task[Any] | None = None
        self._failures = 0

    def tools(self) -> Sequence[Tool]:
        @tool
        async def look(context: ToolContext) -> str:
            self._begins(context)
            context.progress(0.5, "half")
            await asyncio.sleep(1)
            return "seen"

        @tool
        def threaded(context: ToolContext) -> str:
            self._begins(context)
            context.progress(0.5, "half")
            return "done"

        @tool(on_error="retry", attempts=2)
        async def flaky(context: ToolContext) -> str:
            self._begins(context)
            await asyncio.sleep(0.25)
            self._failures += 1
            if self._failures % 2:
                raise ToolError("once more")
            return "at last"

        @tool(requires_approval=True)
        async def danger(context: ToolContext) -> str:
            self._begins(context)
            await asyncio.sleep(0.5)
            return "survived"

        return look, threaded, flaky, danger

    def _begins(self, context: ToolContext) -> None:
        if context.inference_id in self.stopped:
            self.started_late.append(context.call_id)

    async def __call__(self) -> list[Frame]:
        self.main = asyncio.current_task()
        names = ("look", "threaded", "flaky", "danger", "unknown")
        calls = [call(name, name) for name in names]
        self.bench = bench = Bench(
            model(
                [ThinkingDelta("hm"), Sleep(1), "I look", Sleep(1), *calls],
                ["seen", Sleep(1), ModelCallFinished(), Sleep(0.5)],
            ),
            tools=self.tools(),
            executor=EXECUTOR,
            load_user=load_user,
            turn_persister=persist,
        )
        deciding = asyncio.create_task(self._decide(), name="story: a person decides")
        await bench.manager.open(CONV, owner=ANNA, profile=None)
        await bench.manager.set_step_mode(CONV, True, by="anna")
        asked = [
            asyncio.create_task(bench.ask(prompt), name=f"submit:{prompt}")
            for prompt in ("one", "two")
        ]
        await asyncio.gather(*asked, return_exceptions=True)
        if self.stopping is not None:
            await asyncio.wait({self.stopping})
            with pytest.raises(Draining):
                await bench.ask("late")
        elif self.interrupting is not None:
            await self.interrupting
        await bench.idle()
        if self.stopping is None:
            info = await bench.manager.find(CONV)
            assert info is None or not info.queue_depth, "nobody takes up what waits"
            await bench.ask("three")
            await bench.idle()
        frames = await bench.lawful()
        self._check_history(frames)
        assert not self.started_late
        for end in of(frames, "inference.finished"):
            assert end["id"] not in self.stopped or end["data"]["status"] == "cancelled"
        deciding.cancel()
        await asyncio.wait({deciding})
        await bench.aclose()
        if self.interrupting is not None:
            await asyncio.gather(self.interrupting, return_exceptions=True)
        return frames

    async def _decide(self) -> None:
        while True:
            await asyncio.sleep(0.7)
            for pause in self.session.steps.open if self.session else ():
                resolution = await self.bench.decide(pause, "continue")
                self.decided[pause.pause_id] = resolution.decision

    @property
    def session(self) -> Session | None:
        return self.bench.manager._sessions.get(CONV)

    @property
    def active(self) -> ExecutionHandle | None:
        return self.session.active if self.session else None

    async def interrupt(self) -> None:
        """Asks a prompt that will not wait for the one that runs now."""
        running = self.active
        answer = await self.bench.ask("now", policy="interrupt")
        if isinstance(answer, Queued):
            assert running is not None
            assert answer.position == 1
            self.interrupted = running.inference_id

    def _check_history(self, frames: list[Frame]) -> None:
        """What people saw of the prompts is what the model will see, none lost, none doubled."""
        assert self.session is not None
        assert not self.session.steps.open
        told = [frame["data"]["content"] for frame in of(frames, "chat.message")]
        if self.interrupted is not None:
            taken = [frame["inference_id"] for frame in of(frames, "chat.message")]
            assert told[taken.index(self.interrupted) + 1] == "now"
        for frame in of(frames, "debugger.resumed"):
            decision = frame["data"]["decision"]
            assert self.decided.get(frame["id"], decision) == decision
        in_turn = [prompt for prompt in told if prompt != "now"]
        assert in_turn == sorted(in_turn, key=("one", "two", "three").index)
        turns = self.session.turns
        kept = [b.text for b in turns[-1].blocks if isinstance(b, User)] if turns else []
        assert kept == told
        assert [turn.metadata.outcome for turn in turns] == ends(frames)


N = len(awaits_of(Story()))


def everywhere(act: Callable[[Story, Moment], Throw | Hold | None]) -> None:
    """Plays the story with `act` at each of its awaits, and tells all at which the law broke."""
    broken = []
    for number in range(1, N + 1):
        story = Story()
        met: list[Moment] = []

        def here(moment: Moment, story: Story = story, met: list[Moment] = met) -> Any:
            met.append(moment)
            return act(story, moment)

        try:
            meet(story, number, here)
        except Exception as error:  # noqa: BLE001 - all that broke are told together
            broken.append(f"{met}: {type(error).__name__}: {error}")
    assert not broken, "\n".join([f"{len(broken)} of {N}", *broken])


def test_the_story_goes_the_whole_way():
    told = "\n".join(awaits_of(Story()))
    for place in (
        "manager.py", "session.py", "load_user", "runner.py", "testing/engine.py", "_before",
        "authorise", "steps.py", "executor.py", "look", "flaky", "danger", "_call",
        "_after", "persist", "coordinator.py", "flush",
    ):  # fmt: skip
        assert place in told, place


def test_untouched_it_ends_well():
    assert ends(meet(Story(), 0, lambda moment: None)) == ["completed"] * 3


@pytest.mark.parametrize("when_back", [False, True], ids=["at once", "when it is there"])
@pytest.mark.parametrize("error", [Boom, asyncio.CancelledError])
def test_whatever_an_await_raises(error: type[BaseException], when_back: bool):
    everywhere(lambda story, moment: Throw(error("unexpected"), when_back=when_back))


def test_whoever_is_cancelled_where_it_waits():
    def cancel(story: Story, moment: Moment) -> None:
        moment.task.cancel()

    everywhere(cancel)


def test_stop():
    def stop(story: Story, moment: Moment) -> None:
        if story.active and story.active.cancel():
            story.stopped.add(story.active.inference_id)

    everywhere(stop)


def test_the_inference_is_torn_down():
    def tear_down(story: Story, moment: Moment) -> None:
        if story.active:
            story.active._task.cancel()

    everywhere(tear_down)


def test_the_loop_ends_and_cancels_everything_at_once():
    def cancel_all(story: Story, moment: Moment) -> None:
        for task in asyncio.all_tasks():
            if not task.get_name().startswith("story") and task is not story.main:
                task.cancel()

    everywhere(cancel_all)


def test_the_server_stops():
    def stop(story: Story, moment: Moment) -> None:
        story.stopping = asyncio.create_task(story.bench.manager.aclose(), name="story: it stops")

    everywhere(stop)


def test_a_prompt_interrupts():
    def interrupt(story: Story, moment: Moment) -> None:
        story.interrupting = asyncio.create_task(story.interrupt(), name="story: interrupts")

    everywhere(interrupt)


def test_whoever_is_late():
    def late(story: Story, moment: Moment) -> Hold:
        return Hold()

    everywhere(late)
