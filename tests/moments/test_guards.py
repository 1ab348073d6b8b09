"""What guards the one end of an inference: with any of it gone, the law of frames breaks.

An engine does all that it must not: it says its own end, swallows its cancellation, and goes on
speaking and asking when it was abandoned. The story is played once for each of its awaits, and the
inference stopped there; it is lawful, until a guard is taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sessions_app.inference import runner
from sessions_app.inference.events import (
    InferenceFinished,
    Log,
    ModelCallFinished,
    TextDelta,
    publish,
)
from sessions_app.inference.runner import Cancellation
from sessions_app.inference.turns import LlmText, Turn
from sessions_app.testing import ScriptedEngine
from tests.awaits import Moment, awaits_of, meet
from tests.moments.bench import Bench, of


class Unruly(ScriptedEngine):
    """Answers after a second, and goes on for a minute when it is told to stop."""

    async def infer(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        publish(TextDelta("I say "))
        publish(
            InferenceFinished(  # type: ignore[arg-type] # the very thing it may not say
                inference_id=turn.metadata.inference_id or "",
                status="completed",
                model=self.model,
                stop_reason="stop",
                duration_ms=1,
            )
        )
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(60)
            publish(TextDelta("after all"))
            publish(Log(message="I am still here"))
        publish(TextDelta("so"))
        publish(ModelCallFinished())
        await asyncio.sleep(0.5)
        return turn.with_blocks(LlmText(text="I say so"))


class Story:
    """One prompt that may be stopped, and another when the first engine has long been abandoned."""

    bench: Bench

    def __init__(self) -> None:
        self.stopped: set[str] = set()

    async def __call__(self) -> None:
        self.bench = bench = Bench(Unruly())
        await bench.ask("one")
        await bench.idle()
        await asyncio.sleep(100)
        await bench.ask("two")
        await bench.idle()
        await asyncio.sleep(100)
        for end in of(await bench.lawful(), "inference.finished"):
            assert end["id"] not in self.stopped or end["data"]["status"] == "cancelled"
        await bench.aclose()

    def stop(self, moment: Moment) -> None:
        """A stop that is answered with yes is a promise."""
        session = self.bench.manager._sessions.get("conv")
        if session and (active := session.active) and active.cancel():
            self.stopped.add(active.inference_id)


def stopped_everywhere() -> int:
    """Plays the story with a stop at each await; returns how many there are."""
    number = len(awaits_of(Story()))
    for place in range(1, number + 1):
        story = Story()
        meet(story, place, story.stop)
    return number


def test_an_engine_that_keeps_to_nothing_changes_nothing_in_the_law():
    assert stopped_everywhere() > 10


def speaks_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """The run's sink that does not know that it is over."""

    class Endless(runner._Run):
        @property
        def _finished(self) -> bool:
            return False

        @_finished.setter
        def _finished(self, value: bool) -> None:
            pass

    patch.setattr(runner, "_Run", Endless)


def takes_an_end_from_the_engine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner, "_ENGINE_EVENTS", (*runner._ENGINE_EVENTS, InferenceFinished))


def promises_what_is_too_late(patch: pytest.MonkeyPatch) -> None:
    """A cancellation that is agreed to when the end stands already."""

    def decide(self: Cancellation) -> bool:
        return self.requested

    patch.setattr(Cancellation, "decide", decide)


def says_the_end_twice(patch: pytest.MonkeyPatch) -> None:
    """The handle's task and its end both write it, as if none knew of the other."""
    run = runner.InferenceRunner.run

    async def twice(self: runner.InferenceRunner, turn: Turn, **options: Any) -> Turn:
        final = await run(self, turn, **options)
        self.give_up(turn, sink=options["sink"])
        return final

    patch.setattr(runner.InferenceRunner, "run", twice)


@pytest.mark.parametrize(
    "without",
    [
        speaks_after_the_end,
        takes_an_end_from_the_engine,
        promises_what_is_too_late,
        says_the_end_twice,
    ],
)
def test_without_its_guard_the_law_breaks_at_one_of_these_awaits(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
):
    without(monkeypatch)
    with pytest.raises(AssertionError):
        stopped_everywhere()
