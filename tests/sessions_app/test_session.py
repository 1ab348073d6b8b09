"""One conversation's history, and at most one inference at a time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app import queue
from sessions_app.inference.errors import ConfigurationError, NoActiveInference, RunInProgress
from sessions_app.inference.events import (
    InferenceFinished,
    InferenceStarted,
    ModelCallFinished,
    PromptTaken,
    SessionUpdated,
    TextDelta,
    ThinkingDelta,
)
from sessions_app.inference.middleware import system_prompt
from sessions_app.inference.runner import InferenceRunner
from sessions_app.inference.turns import LlmText, Reasoning, System, Turn, User
from sessions_app.profiles import Profile
from sessions_app.session import Session
from sessions_app.store import StoredConversation
from sessions_app.testing import (
    FLUSHED,
    AbsorbCancel,
    Gate,
    IgnoreCancel,
    RecordingSink,
    ScriptedEngine,
    Sleep,
    Step,
)

pytestmark = pytest.mark.virtual

CHAT = Profile(slug="chat", system_prompt="be brief")
CODE = Profile(slug="code", system_prompt="write code")
PLAIN = Profile(slug="plain")


class Builder:
    """Builds as the product does, around one scripted engine."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.built: list[str] = []
        self.error: Exception | None = None

    def build(self, session: Session) -> InferenceRunner:
        self.built.append(session.profile.slug)
        if self.error is not None:
            raise self.error
        return InferenceRunner(
            self.engine,
            middlewares=[system_prompt(session.profile.system_prompt)],
            timeout=60,
            cancel_grace=5,
        )


class Bench:
    """A session with all that it meets, in our hands."""

    def __init__(self, *steps: Step, sink: RecordingSink | None = None) -> None:
        self.engine = ScriptedEngine(*steps)
        self.builder = Builder(self.engine)
        self.sink = sink or RecordingSink()
        self.now = 1_000
        self.session = Session(
            "conv",
            owner="visitor:anna",
            profile=CHAT,
            builder=self.builder,
            sink=self.sink,
            now_ms=lambda: self.now,
        )

    async def ask(self, prompt: str = "hi", profile: Profile | None = None) -> None:
        await self.session.start(queue.Prompt(text=prompt, key="k", profile=profile)).wait()

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.sink.events]


# One at a time


async def test_a_prompt_is_announced_then_its_inference_started_then_ended():
    bench = Bench(TextDelta("hello"), ModelCallFinished())
    handle = bench.session.start(queue.Prompt(text="hi", key="key-1"))
    taken, started = bench.sink.events
    assert isinstance(taken, PromptTaken)
    assert (taken.content, taken.idempotency_key, taken.turn_id) == ("hi", "key-1", handle.turn_id)
    assert isinstance(started, InferenceStarted)
    assert (started.inference_id, started.profile) == (handle.inference_id, "chat")
    final = await handle.wait()
    assert isinstance(bench.sink.events[-1], InferenceFinished)
    assert final.id == handle.turn_id
    assert taken.message_id in {block.id for block in final.blocks}


async def test_every_event_of_an_inference_names_its_inference_and_turn():
    bench = Bench(TextDelta("hello"))
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await handle.wait()
    origins = {entry[1] for entry in bench.sink.record if isinstance(entry, tuple)}
    assert [(o.inference_id, o.turn_id) for o in origins if o] == [
        (handle.inference_id, handle.turn_id)
    ]
    assert None not in origins


async def test_a_second_prompt_is_refused_while_one_runs_and_nothing_is_published():
    gate = Gate("middle")
    bench = Bench(gate)
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await gate.reached()
    published = list(bench.sink.record)
    with pytest.raises(RunInProgress):
        bench.session.start(queue.Prompt(text="and this", key="k2", profile=CODE))
    assert bench.sink.record == published
    assert bench.session.profile is CHAT
    gate.open()
    await handle.wait()
    assert len(bench.session.turns) == 1


async def test_a_prompt_at_the_same_moment_is_refused_before_the_first_has_taken_a_step():
    bench = Bench()
    first = bench.session.start(queue.Prompt(text="hi", key="k"))
    with pytest.raises(RunInProgress):
        bench.session.start(queue.Prompt(text="hi", key="k2"))
    await first.wait()


@pytest.mark.parametrize(
    "steps",
    [
        [TextDelta("x")],
        [],
        [RuntimeError("no")],
        [SystemExit(1)],
        [GeneratorExit()],
        [asyncio.CancelledError()],
        [Sleep(3600)],
    ],
    ids=["text", "silence", "error", "exit", "generator exit", "cancelled itself", "timeout"],
)
async def test_the_slot_is_free_again_whatever_happened(steps: list[Step]):
    bench = Bench(*steps)
    await bench.ask()
    assert bench.session.active is None
    bench.engine.play(TextDelta("again"))
    await bench.ask("again")
    assert [turn.metadata.outcome is not None for turn in bench.session.turns] == [True, True]


async def test_the_slot_is_free_even_after_an_engine_that_returns_no_turn():
    class Forgetful(ScriptedEngine):
        async def infer(self, turn):
            return None

    bench = Bench()
    bench.builder.engine = Forgetful()
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await handle.wait()
    assert bench.session.active is None
    assert bench.session.turns[-1].metadata.outcome == "failed"


async def test_the_slot_is_free_only_once_the_end_is_in_the_log():
    writing = Gate("flush")
    bench = Bench(TextDelta("x"), sink=RecordingSink(flush_gate=writing))
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await writing.reached()
    assert isinstance(bench.sink.events[-1], InferenceFinished)
    assert bench.session.info().running
    with pytest.raises(RunInProgress):
        bench.session.start(queue.Prompt(text="now?", key="k2"))
    writing.open()
    await handle.wait()
    assert bench.sink.record[-1] is FLUSHED
    assert not bench.session.info().running


async def test_whoever_waited_for_the_end_may_ask_again_at_once():
    bench = Bench(TextDelta("x"))
    await bench.session.start(queue.Prompt(text="hi", key="k")).wait()
    await bench.session.start(queue.Prompt(text="again", key="k2")).wait()
    assert len(bench.session.turns) == 2


async def test_a_shutdown_frees_the_slot_and_logs_the_end():
    gate = Gate("middle")
    bench = Bench(gate)
    bench.session.start(queue.Prompt(text="hi", key="k"))
    await gate.reached()
    [task] = [task for task in asyncio.all_tasks() if task.get_name().startswith("inference:")]
    task.cancel()
    await asyncio.wait({task})
    assert bench.session.active is None
    finished = bench.sink.events[-1]
    assert isinstance(finished, InferenceFinished)
    assert finished.status == "cancelled"


async def test_a_shutdown_before_the_first_step_frees_the_slot_and_logs_the_end_too():
    bench = Bench(TextDelta("x"))
    bench.session.start(queue.Prompt(text="hi", key="k"))
    [task] = [task for task in asyncio.all_tasks() if task.get_name().startswith("inference:")]
    task.cancel()
    await asyncio.wait({task})
    assert bench.session.active is None
    assert bench.kinds[-1] == "InferenceFinished"


async def test_a_shutdown_keeps_the_turn_and_the_next_prompt_that_waits_runs():
    gate = Gate("middle")
    bench = Bench("Hel", gate)
    bench.session.take(queue.Prompt(text="one", key="k"))
    bench.session.take(queue.Prompt(text="two", key="k2"))
    await gate.reached()
    gate.open()
    [task] = [task for task in asyncio.all_tasks() if task.get_name().startswith("inference:")]
    task.cancel()
    await asyncio.sleep(1)
    assert [turn.metadata.outcome for turn in bench.session.turns] == ["cancelled", "completed"]
    said = [b.text for b in bench.session.turns[-1].blocks if isinstance(b, User | LlmText)]
    assert said == ["one", "Hel", "two", "Hel"]


async def test_a_log_that_refuses_the_end_costs_neither_the_turn_nor_the_slot():
    class Refusing(RecordingSink):
        async def flush(self) -> None:
            raise OSError("the log is gone")

    bench = Bench("x", sink=Refusing())
    await bench.ask("one")
    await bench.ask("two")
    assert len(bench.session.turns) == 2


async def test_a_persister_that_hangs_is_left_and_the_next_prompt_runs():
    async def hang(conversation: StoredConversation) -> None:
        await asyncio.Event().wait()

    bench = Bench("x")
    bench.session._persister = hang
    handle = bench.session.start(queue.Prompt(text="one", key="k"))
    await asyncio.sleep(1)
    with pytest.raises(NoActiveInference):
        await asyncio.wait_for(bench.session.cancel(), 1)
    await asyncio.wait_for(handle.wait(), 30)
    assert bench.session.active is None


# Cancel


async def test_cancel_answers_with_the_id_of_the_inference_that_it_ends():
    gate = Gate("middle")
    bench = Bench(TextDelta("Hel"), gate)
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await gate.reached()
    assert await bench.session.cancel() == handle.inference_id
    assert await bench.session.cancel(handle.inference_id) == handle.inference_id
    assert (await handle.wait()).metadata.outcome == "cancelled"


async def test_cancel_without_an_inference_is_refused():
    bench = Bench()
    with pytest.raises(NoActiveInference):
        await bench.session.cancel()
    await bench.ask()
    with pytest.raises(NoActiveInference):
        await bench.session.cancel()


async def test_cancel_of_another_inference_is_refused_and_ends_nothing():
    gate = Gate("middle")
    bench = Bench(gate)
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await gate.reached()
    with pytest.raises(NoActiveInference):
        await bench.session.cancel("another")
    assert handle.is_running
    gate.open()
    assert (await handle.wait()).metadata.outcome == "completed"


async def test_cancel_while_the_end_is_written_waits_for_it_and_is_refused():
    writing = Gate("flush")
    bench = Bench(TextDelta("x"), sink=RecordingSink(flush_gate=writing))
    bench.session.start(queue.Prompt(text="hi", key="k"))
    await writing.reached()
    cancelling = asyncio.create_task(bench.session.cancel())
    done, _ = await asyncio.wait({cancelling}, timeout=100)
    assert not done
    writing.open()
    with pytest.raises(NoActiveInference):
        await cancelling
    assert bench.sink.record[-1] is FLUSHED


async def test_a_cancelled_prompt_and_its_partial_answer_stay_in_the_history():
    gate = Gate("middle")
    bench = Bench(TextDelta("Hel"), gate)
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await gate.reached()
    await bench.session.cancel()
    await handle.wait()
    _, prompt, partial = bench.session.turns[-1].blocks
    assert isinstance(prompt, User)
    assert isinstance(partial, LlmText)
    assert (partial.text, partial.stopped) == ("Hel", True)


# Profile


async def test_a_change_of_profile_is_announced_before_the_prompt_and_outside_of_inferences():
    bench = Bench(TextDelta("x"))
    await bench.ask()
    before = len(bench.sink.record)
    await bench.ask("more", profile=CODE)
    (updated, origin), (taken, _), *_ = bench.sink.record[before:]  # type: ignore[misc]
    assert updated == SessionUpdated(profile="code", fingerprint=CODE.fingerprint, step_mode=False)
    assert origin is None
    assert isinstance(taken, PromptTaken)
    assert bench.session.info().profile == "code"


async def test_the_first_inference_in_the_own_profile_announces_no_change():
    bench = Bench(TextDelta("x"))
    await bench.ask(profile=CHAT)
    assert "SessionUpdated" not in bench.kinds


async def test_the_runner_is_built_once_as_long_as_the_profile_is_the_same():
    bench = Bench(TextDelta("x"))
    for profile in (None, CHAT, CODE, None, CODE, CHAT):
        await bench.ask(profile=profile)
    assert bench.builder.built == ["chat", "code", "chat"]
    assert bench.kinds.count("SessionUpdated") == 2


async def test_a_change_of_profile_keeps_the_history_and_replaces_the_system_prompt():
    bench = Bench(TextDelta("x"))
    await bench.ask("one")
    await bench.ask("two", profile=CODE)
    seen = bench.engine.turns[-1].blocks
    assert [block.text for block in seen if isinstance(block, System)] == ["write code"]
    assert [block.text for block in seen if isinstance(block, User)] == ["one", "two"]


async def test_a_profile_without_a_system_prompt_does_not_inherit_the_last_ones():
    bench = Bench(TextDelta("x"))
    await bench.ask("one")
    await bench.ask("two", profile=PLAIN)
    assert not any(isinstance(block, System) for block in bench.engine.turns[-1].blocks)


async def test_a_profile_that_cannot_be_built_changes_nothing():
    bench = Bench(TextDelta("x"))
    await bench.ask()
    before = list(bench.sink.record)
    bench.builder.error = ConfigurationError("no key", hint="set one")
    with pytest.raises(ConfigurationError):
        bench.session.start(queue.Prompt(text="more", key="k", profile=CODE))
    assert bench.sink.record == before
    assert bench.session.profile is CHAT
    assert bench.session.active is None
    await bench.ask("more")
    assert len(bench.session.turns) == 2


async def test_a_session_whose_first_build_fails_is_usable_after_the_mend():
    bench = Bench(TextDelta("x"))
    bench.builder.error = ConfigurationError("no key", hint="set one")
    with pytest.raises(ConfigurationError):
        bench.session.start(queue.Prompt(text="hi", key="k"))
    assert bench.session.info().title == ""
    bench.builder.error = None
    await bench.ask()
    assert len(bench.session.turns) == 1


# History


async def test_turns_are_only_appended_and_share_their_blocks():
    bench = Bench(TextDelta("x"))
    seen: list[Turn] = []
    for prompt in ("one", "two", "three"):
        await bench.ask(prompt)
        assert bench.session.turns[:-1] == tuple(seen)
        seen.append(bench.session.turns[-1])
    first, second, third = bench.session.turns
    for earlier, later in ((first, second), (second, third)):
        pairs = zip(earlier.blocks, later.blocks, strict=False)
        assert all(a is b for a, b in pairs if not isinstance(a, System))
    assert len({turn.id for turn in bench.session.turns}) == 3


async def test_a_turn_says_whose_it_is_and_how_it_ended():
    bench = Bench(RuntimeError("no"))
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    await handle.wait()
    metadata = bench.session.turns[-1].metadata
    assert (metadata.session_id, metadata.inference_id) == ("conv", handle.inference_id)
    assert (metadata.fingerprint, metadata.outcome) == (CHAT.fingerprint, "failed")


Prompt = tuple[tuple[str, ...], bool]

prompts: st.SearchStrategy[Prompt] = st.tuples(
    st.lists(
        st.sampled_from(
            ["text", "thinking", "wait", "ignore", "absorb", "raise", "finish", "slow"]
        ),
        max_size=5,
    ).map(tuple),
    st.booleans(),
)


def scripted(words: tuple[str, ...], gate: Gate) -> list[Step]:
    steps: dict[str, Step] = {
        "text": TextDelta("Hel"),
        "thinking": ThinkingDelta("hm"),
        "wait": gate,
        "ignore": IgnoreCancel(gate),
        "absorb": AbsorbCancel(gate),
        "raise": RuntimeError("no"),
        "finish": ModelCallFinished(),
        "slow": Sleep(3600),
    }
    return [steps[word] for word in words]


@settings(max_examples=60, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=4))
async def test_the_history_alternates_and_each_inference_ends_once_whatever_happened(
    asked: list[Prompt],
):
    bench = Bench()
    for words, cancel in asked:
        gate = Gate("middle")
        bench.engine.play(*scripted(words, gate))
        handle = bench.session.start(queue.Prompt(text="hi", key="k"))
        if cancel:
            handle.cancel()
        try:
            final = await handle.wait()
        finally:
            gate.open()
        if cancel:
            assert final.metadata.outcome == "cancelled"
    said = [block for block in bench.session.turns[-1].blocks if not isinstance(block, System)]
    roles = [type(block) for block in said if not isinstance(block, Reasoning)]
    assert roles == [User, LlmText] * len(asked)
    assert all(block.text for block in said if isinstance(block, LlmText))
    assert bench.kinds.count("InferenceStarted") == len(asked)
    assert bench.kinds.count("InferenceFinished") == len(asked)
    within = [kind for kind in bench.kinds if kind in ("InferenceStarted", "InferenceFinished")]
    assert within == ["InferenceStarted", "InferenceFinished"] * len(asked)


# What is told


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Hello there", "Hello there"),
        ("\n\n  second line \nthird", "second line"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("  \n ", ""),
    ],
)
async def test_the_title_is_the_first_line_that_says_something(prompt: str, title: str):
    bench = Bench(TextDelta("x"))
    await bench.ask(prompt)
    assert bench.session.info().title == title


async def test_the_title_stays_that_of_the_first_prompt():
    bench = Bench(TextDelta("x"))
    await bench.ask("first")
    await bench.ask("second")
    assert bench.session.info().title == "first"


async def test_activity_is_the_start_and_the_end_of_an_inference():
    gate = Gate("middle")
    bench = Bench(gate)
    assert bench.session.info().last_activity_ms == bench.session.info().created_ms == 1_000
    bench.now = 2_000
    handle = bench.session.start(queue.Prompt(text="hi", key="k"))
    assert bench.session.info().last_activity_ms == 2_000
    await gate.reached()
    bench.now = 3_000
    gate.open()
    await handle.wait()
    info = bench.session.info()
    assert (info.created_ms, info.last_activity_ms) == (1_000, 3_000)


# On another server


@pytest.mark.parametrize(("asked", "status"), [(True, "cancelled"), (False, "lost")])
async def test_an_answer_whose_server_died_ends_as_whoever_stopped_it_was_told(
    asked: bool, status: str
):
    gate = Gate("middle")
    dead = Bench(IgnoreCancel(gate))
    handle = dead.session.start(queue.Prompt(text="hi", key="k"))
    await gate.reached()
    if asked:
        await dead.session.cancel(handle.inference_id)
    record = dead.session.record()
    heir = Bench()
    heir.session.resume(record, (), (), profile_of=lambda slug: CHAT)
    end = heir.sink.events[-1]
    assert isinstance(end, InferenceFinished)
    assert (end.inference_id, end.status) == (handle.inference_id, status)
    assert heir.session.turns[-1].metadata.outcome == status
    gate.open()
    await handle.wait()
