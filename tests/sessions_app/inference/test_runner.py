"""One inference has one end, whatever the engine does and whenever it is cancelled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from sessions_app.inference.engine import Infer, Middleware
from sessions_app.inference.errors import InferenceFailed, StreamStalled
from sessions_app.inference.events import (
    Event,
    InferenceFinished,
    Log,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    Status,
    TextDelta,
    ThinkingDelta,
    Usage,
    publish,
)
from sessions_app.inference.middleware import system_prompt
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.turns import (
    Block,
    LlmText,
    Reasoning,
    System,
    Turn,
    TurnMetadata,
    User,
)
from sessions_app.testing import (
    FLUSHED,
    AbsorbCancel,
    Gate,
    IgnoreCancel,
    RecordingSink,
    ScriptedEngine,
    Sleep,
)

pytestmark = pytest.mark.virtual

TURN = Turn(
    blocks=(User(text="hi"),), metadata=TurnMetadata(session_id="s", inference_id="inference-1")
)


class Run:
    """An inference under way: its sink, its cancellation, and its task."""

    def __init__(
        self, engine: ScriptedEngine, *, sink: RecordingSink | None = None, **options: Any
    ) -> None:
        self.engine = engine
        self.sink = sink or RecordingSink()
        self.cancellation = Cancellation()
        self._started = asyncio.get_running_loop().time()
        runner = InferenceRunner(engine, **options)
        self.task = asyncio.create_task(
            runner.run(TURN, sink=self.sink, cancellation=self.cancellation)
        )

    async def end(self) -> Turn:
        """The final turn, after what must hold for every end was checked."""
        turn = await self.task
        self.finished  # noqa: B018 - checks that there is exactly one, the last, flushed
        assert turn.metadata.outcome == self.finished.status
        assert turn.id == TURN.id
        assert alternates(turn.blocks), turn.blocks
        return turn

    @property
    def finished(self) -> InferenceFinished:
        ends = [event for event in self.sink.events if isinstance(event, InferenceFinished)]
        assert len(ends) == 1, ends
        origin = Origin(inference_id="inference-1", turn_id=TURN.id)
        assert self.sink.record[-2:] == [(ends[0], origin), FLUSHED]
        assert ends[0].inference_id == "inference-1"
        return ends[0]

    @property
    def seconds(self) -> float:
        return asyncio.get_running_loop().time() - self._started


def alternates(blocks: tuple[Block, ...]) -> bool:
    """True for user, assistant, user, assistant … and an assistant's word at the end."""
    said = [type(block) for block in blocks if isinstance(block, User | LlmText)]
    return said == [User, LlmText] * (len(said) // 2) and len(said) % 2 == 0


def answer(turn: Turn) -> LlmText:
    last = turn.blocks[-1]
    assert isinstance(last, LlmText)
    return last


# Success


async def test_a_completed_inference_ends_once_and_its_end_is_in_the_log_when_run_returns():
    engine = ScriptedEngine(TextDelta("Hel"), TextDelta("lo"), ModelCallFinished())
    run = Run(engine)
    turn = await run.end()
    assert run.finished.status == "completed"
    assert run.finished.error is None
    assert run.finished.stop_reason == "stop"
    assert run.finished.model == "scripted"
    assert answer(turn) == LlmText(id=answer(turn).id, text="Hello")
    kinds = [type(event) for event in run.sink.events]
    assert kinds == [
        ModelCallStarted, TextDelta, TextDelta, ModelCallFinished, InferenceFinished
    ]  # fmt: skip


async def test_every_event_carries_the_inference_and_the_turn_that_caused_it():
    run = Run(ScriptedEngine(Log(message="note"), Status(note="on it"), TextDelta("x")))
    await run.end()
    origins = {entry[1] for entry in run.sink.record if isinstance(entry, tuple)}
    assert origins == {Origin(inference_id="inference-1", turn_id=TURN.id)}


async def test_an_engine_that_forgets_to_finish_its_model_call_has_it_finished_for_it():
    run = Run(ScriptedEngine(TextDelta("x")))
    await run.end()
    assert [type(event) for event in run.sink.events][-2:] == [ModelCallFinished, InferenceFinished]


async def test_a_second_end_of_a_model_call_is_dropped():
    usage = Usage(input_tokens=3, output_tokens=5)
    run = Run(ScriptedEngine(ModelCallFinished(usage=usage), ModelCallFinished(usage=usage)))
    await run.end()
    assert [type(event) for event in run.sink.events].count(ModelCallFinished) == 1
    assert run.finished.usage == usage


async def test_what_an_engine_says_after_its_model_call_is_dropped():
    run = Run(ScriptedEngine(TextDelta("a"), ModelCallFinished(), TextDelta("b")))
    await run.end()
    assert run.sink.text == "a"


async def test_the_stop_reason_and_the_usage_of_the_model_call_are_those_of_the_end():
    usage = Usage(input_tokens=3, output_tokens=5, cached_tokens=1)
    finish = ModelCallFinished(stop_reason="length", usage=usage)
    run = Run(ScriptedEngine(TextDelta("x"), finish))
    await run.end()
    assert (run.finished.stop_reason, run.finished.usage) == ("length", usage)


def retrying(infer: Infer) -> Infer:
    async def twice(turn: Turn) -> Turn:
        await infer(turn)
        return await infer(turn)

    return twice


async def test_the_usage_of_several_model_calls_is_summed():
    usage = Usage(input_tokens=3, output_tokens=5, cached_tokens=1)
    engine = ScriptedEngine(TextDelta("x"), ModelCallFinished(usage=usage))
    run = Run(engine, middlewares=[retrying])
    await run.end()
    assert run.finished.usage == usage + usage


async def test_each_model_call_has_a_message_id_of_its_own():
    run = Run(ScriptedEngine(TextDelta("x")), middlewares=[retrying])
    await run.end()
    started = [event for event in run.sink.events if isinstance(event, ModelCallStarted)]
    assert len({event.message_id for event in started}) == 2


async def test_an_inference_without_a_word_leaves_one_that_says_so():
    turn = await Run(ScriptedEngine(ThinkingDelta("hm"), ModelCallFinished())).end()
    assert answer(turn).text.startswith("[no answer: ")


async def test_an_empty_answer_is_no_word():
    class Silent(ScriptedEngine):
        async def infer(self, turn: Turn) -> Turn:
            return turn.with_blocks(LlmText(text=""))

    turn = await Run(Silent()).end()
    assert answer(turn).text.startswith("[no answer: ")


async def test_a_thought_after_the_words_is_not_the_last_word():
    class Afterthought(ScriptedEngine):
        async def infer(self, turn: Turn) -> Turn:
            return (await super().infer(turn)).with_blocks(Reasoning(text="hm"))

    turn = await Run(Afterthought("hello")).end()
    assert [type(block) for block in turn.blocks] == [User, LlmText, Reasoning]


async def test_the_turn_that_was_passed_in_is_never_changed():
    before = TURN.blocks, TURN.metadata
    await Run(ScriptedEngine(TextDelta("x")), middlewares=[system_prompt("be brief")]).end()
    assert (TURN.blocks, TURN.metadata) == before
    assert TURN.blocks is before[0]


async def test_the_system_prompt_is_in_the_turn_once_after_any_number_of_inferences():
    runner = InferenceRunner(
        ScriptedEngine(TextDelta("x")), middlewares=[system_prompt("be brief")]
    )
    turn = TURN
    for _ in range(3):
        turn = await runner.run(turn, sink=RecordingSink(), cancellation=Cancellation())
        turn = turn.derive(User(text="more"), metadata=turn.metadata)
    assert [type(block) for block in turn.blocks].count(System) == 1


async def test_the_first_listed_middleware_sees_the_turn_first():
    seen: list[str] = []

    def named(name: str) -> Middleware:
        def middleware(infer: Infer) -> Infer:
            async def step(turn: Turn) -> Turn:
                seen.append(name)
                return await infer(turn)

            return step

        return middleware

    await Run(ScriptedEngine(TextDelta("x")), middlewares=[named("a"), named("b")]).end()
    assert seen == ["a", "b"]


async def test_a_model_that_returns_no_turn_fails_its_inference_and_keeps_the_partial_text():
    class Forgetful(ScriptedEngine):
        async def infer(self, turn: Turn) -> Turn:
            await super().infer(turn)
            return None  # type: ignore[return-value]

    run = Run(Forgetful(TextDelta("par")))
    turn = await run.end()
    assert run.finished.status == "failed"
    assert (answer(turn).text, answer(turn).stopped) == ("par", True)


# Cancel


async def test_a_cancel_before_the_engines_first_step_ends_the_inference_as_cancelled():
    run = Run(ScriptedEngine(TextDelta("x"), Gate("never")))
    assert run.cancellation.request()
    await run.end()
    assert run.finished.status == "cancelled"


async def test_a_cancel_before_the_engines_first_step_never_asks_the_engine():
    run = Run(ScriptedEngine(TextDelta("x")))
    assert run.cancellation.request()
    turn = await run.end()
    assert answer(turn).text == "[no answer: stopped]"
    assert run.engine.turns == []


async def test_a_cancel_in_the_text_keeps_the_partial_answer_marked_as_stopped():
    middle = Gate("middle")
    run = Run(ScriptedEngine(TextDelta("Hel"), middle, TextDelta("lo")))
    await middle.reached()
    assert run.cancellation.request()
    turn = await run.end()
    assert run.finished.status == "cancelled"
    assert run.finished.stop_reason == "cancelled"
    assert run.sink.text == "Hel"
    assert (answer(turn).text, answer(turn).stopped) == ("Hel", True)
    assert run.seconds == 0


async def test_a_cancel_without_text_leaves_a_word_that_says_so():
    gate = Gate("before the text")
    run = Run(ScriptedEngine(gate))
    await gate.reached()
    run.cancellation.request()
    assert answer(await run.end()).text == "[no answer: stopped]"


async def test_a_cancel_asked_for_twice_is_one_cancel_and_the_first_reason_counts():
    gate = Gate("middle")
    run = Run(ScriptedEngine(gate))
    await gate.reached()
    assert run.cancellation.request("first")
    assert run.cancellation.request("second")
    await run.end()
    assert run.finished.error == "first"


async def test_a_cancel_between_the_engines_end_and_the_decision_still_counts():
    run = Run(ScriptedEngine())
    # The last thing the engine does, so its call is over before the runner looks.
    run.engine.play(TextDelta("all of it"), run.cancellation.request)
    turn = await run.end()
    assert run.finished.status == "cancelled"
    assert answer(turn).text == "all of it"


async def test_a_cancel_after_the_end_is_too_late():
    run = Run(ScriptedEngine(TextDelta("x")))
    await run.end()
    assert not run.cancellation.request()
    assert run.finished.status == "completed"


async def test_a_cancel_while_the_end_is_being_written_is_too_late():
    writing = Gate("flush")
    run = Run(ScriptedEngine(TextDelta("x")), sink=RecordingSink(flush_gate=writing))
    await writing.reached()
    assert not run.cancellation.request()
    writing.open()
    await run.end()
    assert run.finished.status == "completed"


async def test_an_engine_that_returns_when_it_is_cancelled_has_been_cancelled_all_the_same():
    gate = Gate("middle")
    run = Run(ScriptedEngine(TextDelta("Hel"), AbsorbCancel(gate), TextDelta("lo")))
    await gate.reached()
    run.cancellation.request()
    turn = await run.end()
    assert run.finished.status == "cancelled"
    assert answer(turn).text == "Hel"


async def test_an_engine_that_raises_when_it_is_cancelled_has_been_cancelled_all_the_same():
    gate = Gate("middle")

    class Loud(ScriptedEngine):
        async def infer(self, turn: Turn) -> Turn:
            try:
                return await super().infer(turn)
            except asyncio.CancelledError:
                raise RuntimeError("how dare you") from None

    run = Run(Loud(TextDelta("Hel"), gate))
    await gate.reached()
    run.cancellation.request()
    turn = await run.end()
    assert (run.finished.status, run.finished.error) == ("cancelled", None)
    assert answer(turn).text == "Hel"


async def test_an_engine_that_swallows_its_cancellation_is_abandoned_after_the_grace():
    gate = Gate("stubborn")
    run = Run(
        ScriptedEngine(TextDelta("Hel"), IgnoreCancel(gate), TextDelta("too late")), cancel_grace=5
    )
    await gate.reached()
    run.cancellation.request()
    turn = await run.end()
    assert run.seconds == 5
    assert run.finished.status == "cancelled"
    assert answer(turn).text == "Hel"
    gate.open()
    await others()
    assert run.sink.text == "Hel"
    run.finished  # noqa: B018 - still one, still the last


async def test_an_abandoned_engine_that_is_asked_again_says_nothing_more():
    gate = Gate("stubborn")
    engine = ScriptedEngine(IgnoreCancel(gate), TextDelta("too late"))
    run = Run(engine, middlewares=[retrying], cancel_grace=5)
    await gate.reached()
    run.cancellation.request()
    await run.end()
    gate.open()
    await others()
    run.finished  # noqa: B018 - still the last


async def test_a_middleware_cancelled_after_the_answer_keeps_the_answer():
    gate = Gate("after the answer")

    def lingering(infer: Infer) -> Infer:
        async def linger(turn: Turn) -> Turn:
            answered = await infer(turn)
            await gate.passed()
            return answered

        return linger

    run = Run(ScriptedEngine(TextDelta("all of it")), middlewares=[lingering])
    await gate.reached()
    run.cancellation.request()
    assert answer(await run.end()).text == "all of it"


# Failure

SECRET = "sk-very-secret"


def deep() -> object:
    return deep()


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError(SECRET),
        KeyError(SECRET),
        SystemExit(SECRET),
        GeneratorExit(SECRET),
        RecursionError(SECRET),
        StopAsyncIteration(SECRET),
        StopIteration(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        deep,
    ],
    ids=lambda failure: getattr(failure, "__name__", type(failure).__name__),
)
@pytest.mark.parametrize("text", ["", "Hel"])
async def test_whatever_an_engine_raises_ends_its_inference_once_and_tells_only_a_reference(
    failure: BaseException | Callable[[], object], text: str, caplog: pytest.LogCaptureFixture
):
    run = Run(ScriptedEngine(*([TextDelta(text)] if text else []), failure))
    turn = await run.end()
    assert run.finished.status == "failed"
    assert run.finished.stop_reason == "error"
    assert run.finished.error is not None
    assert SECRET not in run.finished.error
    reference = run.finished.error.split()[-1].rstrip(".")
    assert reference in caplog.text
    assert answer(turn).text == (text or "[no answer: failed]")
    assert answer(turn).stopped


async def test_the_sentence_of_an_inference_failed_is_told_to_people():
    run = Run(ScriptedEngine(TextDelta("Hel"), InferenceFailed("The model is overloaded.")))
    turn = await run.end()
    assert (run.finished.status, run.finished.error) == ("failed", "The model is overloaded.")
    assert answer(turn).text == "Hel"


async def test_an_engine_that_cancels_itself_has_failed():
    run = Run(ScriptedEngine(TextDelta("Hel"), asyncio.CancelledError()))
    await run.end()
    assert run.finished.status == "failed"
    assert run.finished.error


async def test_a_middleware_that_raises_after_the_answer_keeps_the_answer():
    def broken(infer: Infer) -> Infer:
        async def step(turn: Turn) -> Turn:
            await infer(turn)
            raise RuntimeError

        return step

    run = Run(ScriptedEngine(TextDelta("all of it")), middlewares=[broken])
    turn = await run.end()
    assert run.finished.status == "failed"
    assert answer(turn).text == "all of it"


class FullSink(RecordingSink):
    """Takes two pieces of text, and what every sink must take."""

    def publish(self, event: Event, origin: Origin | None = None) -> None:
        if isinstance(event, TextDelta) and len(self.text) == 2:
            raise StreamStalled("the log does not follow")
        super().publish(event, origin)


async def test_a_log_that_does_not_follow_fails_the_inference_and_says_so():
    run = Run(ScriptedEngine(*map(TextDelta, "abcd")), sink=FullSink())
    await run.end()
    assert (run.finished.status, run.finished.error) == ("failed", "the log does not follow")


async def test_the_history_keeps_no_text_that_the_log_refused():
    run = Run(ScriptedEngine(*map(TextDelta, "abcd")), sink=FullSink())
    assert answer(await run.end()).text == run.sink.text == "ab"


# Time


async def test_an_inference_that_takes_too_long_has_failed_and_keeps_its_text():
    run = Run(ScriptedEngine(TextDelta("Hel"), Sleep(3600)), timeout=30)
    turn = await run.end()
    assert run.seconds == 30
    assert run.finished.status == "failed"
    assert "30 seconds" in (run.finished.error or "")
    assert answer(turn).text == "Hel"


async def test_an_engine_that_answers_within_the_grace_after_its_time_has_failed_all_the_same():
    gate = Gate("slow")
    run = Run(ScriptedEngine(TextDelta("Hel"), AbsorbCancel(gate)), timeout=30)
    turn = await run.end()
    assert run.finished.status == "failed"
    assert answer(turn).text == "Hel"


async def test_an_engine_in_time_is_not_disturbed():
    run = Run(ScriptedEngine(Sleep(29), TextDelta("x")), timeout=30)
    await run.end()
    assert run.finished.status == "completed"


async def test_a_cancel_during_the_grace_of_a_timeout_makes_it_a_cancel():
    gate = Gate("stubborn")
    run = Run(ScriptedEngine(IgnoreCancel(gate)), timeout=30, cancel_grace=5)
    await asyncio.sleep(32)
    assert run.cancellation.request()
    await run.end()
    assert run.finished.status == "cancelled"
    gate.open()
    await others()


# Shutdown


async def test_a_shutdown_logs_the_end_as_cancelled_before_it_goes_on():
    gate = Gate("middle")
    run = Run(ScriptedEngine(TextDelta("Hel"), gate))
    await gate.reached()
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert (run.finished.status, run.finished.error) == ("cancelled", "server restarting")


async def test_a_shutdown_waits_no_longer_than_the_grace_for_a_stubborn_engine():
    gate = Gate("stubborn")
    run = Run(ScriptedEngine(IgnoreCancel(gate)), cancel_grace=5)
    await gate.reached()
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert run.seconds == 5
    assert run.finished.status == "cancelled"
    gate.open()
    await others()


async def test_a_second_shutdown_ends_the_grace_at_once():
    gate = Gate("stubborn")
    run = Run(ScriptedEngine(IgnoreCancel(gate)), cancel_grace=5)
    await gate.reached()
    run.task.cancel()
    await asyncio.sleep(1)
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert run.seconds == 1
    assert run.finished.status == "cancelled"
    gate.open()
    await others()


async def test_a_shutdown_while_a_cancelled_engine_stops_is_not_swallowed():
    gate = Gate("stubborn")
    run = Run(ScriptedEngine(IgnoreCancel(gate)), cancel_grace=5)
    await gate.reached()
    run.cancellation.request("by a person")
    await asyncio.sleep(1)
    run.task.cancel()
    await asyncio.wait({run.task})
    gate.open()
    await others()
    assert (run.finished.status, run.finished.error) == ("cancelled", "by a person")
    assert run.task.cancelled()


# What lies outside


async def test_what_an_engine_left_behind_says_after_the_end_is_dropped():
    stray: list[asyncio.Task[None]] = []

    async def mumble() -> None:
        await asyncio.sleep(10)
        publish(Log(message="still here"))
        publish(TextDelta("too late"))

    run = Run(ScriptedEngine(TextDelta("x"), lambda: stray.append(asyncio.create_task(mumble()))))
    await run.end()
    await stray[0]
    assert run.sink.text == "x"
    run.finished  # noqa: B018 - still the last


async def test_an_engine_that_publishes_an_end_of_its_own_is_not_heard():
    own = InferenceFinished(
        inference_id="inference-1", status="completed", model="x", stop_reason="stop", duration_ms=0
    )
    run = Run(ScriptedEngine(TextDelta("x"), cast("Log", own), TextDelta("y")))
    await run.end()
    assert own not in run.sink.events


async def test_publishing_is_over_for_the_caller_too():
    await Run(ScriptedEngine(TextDelta("x"))).end()
    with pytest.raises(LookupError):
        publish(TextDelta("y"))


def test_the_doubles_and_the_runner_work_with_django_absent():
    program = (
        "import sys\n"
        "sys.modules['django'] = sys.modules['channels'] = None\n"
        "import sessions_app.testing, sessions_app.inference.runner\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'chat']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def others() -> None:
    """Returns when every other task of this test is done."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(tasks)
