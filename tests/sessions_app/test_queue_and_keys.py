"""Prompts that wait, keys that replay, and conversations that are put away and come back."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.inference.errors import (
    BadOverride,
    ConversationNotFound,
    Draining,
    KeyReused,
    NoActiveInference,
    NotQueued,
    OverridesNotAllowed,
    QueueFull,
    RunInProgress,
)
from sessions_app.inference.events import (
    InferenceFinished,
    InferenceStarted,
    PromptTaken,
    QueueUpdated,
    SessionUpdated,
)
from sessions_app.inference.runner import InferenceRunner
from sessions_app.inference.turns import User
from sessions_app.manager import ManagerLimits, SessionManager
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.testing import Gate, RecordingSink, ScriptedEngine, Step
from sessions_app.values import PromptRequest, Queued, Started, Submitted

pytestmark = pytest.mark.virtual

ANNA, BERT = "visitor:anna", "visitor:bert"
PROFILES = Profiles(
    [
        Profile(slug="chat"),
        Profile(slug="open", tools=("calc",), allow_overrides=True),
        Profile(slug="stepping", step_mode=True),
        Profile(slug="broken"),
    ]
)


class Bench:
    """A manager, its builder and its streams, with the clock in our hands."""

    def __init__(self, *steps: Step, **limits: float) -> None:
        self.engine = ScriptedEngine(*steps)
        self.sinks: dict[str, RecordingSink] = {}
        self.now = 1_000_000
        self.watching: set[str] = set()
        self.unloaded: list[str] = []
        self.forgotten: list[str] = []
        self.unbuildable: set[str] = set()
        self.built: list[str] = []
        self.manager = SessionManager(
            profiles=PROFILES,
            builder=self,
            streams=self,
            limits=ManagerLimits(**limits),  # type: ignore[arg-type] # counts are whole numbers
            now_ms=lambda: self.now,
        )

    def build(self, session: Session) -> InferenceRunner:
        if session.runtime.slug in self.unbuildable:
            raise RuntimeError("this profile is broken")
        self.built.append(session.runtime.slug)
        return InferenceRunner(self.engine)

    def sink(self, conv_id: str) -> RecordingSink:
        return self.sinks.setdefault(conv_id, RecordingSink())

    def watched(self, conv_id: str) -> bool:
        return conv_id in self.watching

    def size(self, conv_id: str) -> int:
        return 100

    async def unload(self, conv_id: str) -> None:
        self.unloaded.append(conv_id)

    def forget(self, conv_id: str) -> None:
        self.forgotten.append(conv_id)

    async def ask(self, prompt: str, key: str | None = None, **fields: object) -> Submitted:
        return (await self.answer(prompt, key, **fields))[0]

    async def answer(
        self, prompt: str, key: str | None = None, **fields: object
    ) -> tuple[Submitted, bool]:
        asked: dict[str, object] = {"owner": ANNA, "conv_id": "conv", **fields}
        request = PromptRequest(prompt=prompt, idempotency_key=key, **asked)  # type: ignore[arg-type]
        return await self.manager.submit(request)

    def taken(self) -> list[str]:
        events = self.sinks["conv"].events
        return [event.content for event in events if isinstance(event, PromptTaken)]

    def ends(self) -> list[str]:
        events = self.sinks["conv"].events
        return [event.status for event in events if isinstance(event, InferenceFinished)]

    def waiting(self) -> list[str]:
        events = self.sinks["conv"].events
        told = [event for event in events if isinstance(event, QueueUpdated)]
        return [item.preview for item in told[-1].items] if told else []

    async def idle(self) -> None:
        while True:
            info = await self.manager.find("conv")
            if info is None or not (info.running or info.queue_depth):
                return
            await asyncio.sleep(1)


# Queue


async def test_prompts_wait_their_turn_and_run_in_order():
    gate = Gate("busy")
    bench = Bench(gate)
    first = await bench.ask("one")
    second, third = await bench.ask("two", "k2"), await bench.ask("three", "k3")
    assert isinstance(first, Started)
    assert isinstance(second, Queued)
    assert isinstance(third, Queued)
    assert (second.position, second.depth) == (1, 1)
    assert (third.position, third.depth) == (2, 2)
    assert bench.waiting() == ["two", "three"]
    gate.open()
    await bench.idle()
    assert bench.taken() == ["one", "two", "three"]
    assert bench.ends() == ["completed"] * 3
    assert bench.waiting() == []


async def test_a_prompt_that_must_not_wait_is_refused():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    with pytest.raises(RunInProgress):
        await bench.ask("two", policy="reject")
    gate.open()
    await bench.idle()
    assert bench.taken() == ["one"]


async def test_a_prompt_that_interrupts_ends_the_running_one_and_is_next():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    await bench.ask("two")
    gate.open()
    urgent = await bench.ask("now", policy="interrupt")
    assert isinstance(urgent, Queued)
    assert urgent.position == 1
    await bench.idle()
    assert bench.taken() == ["one", "now", "two"]
    assert bench.ends() == ["cancelled", "completed", "completed"]


async def test_a_full_queue_refuses_and_loses_nothing():
    gate = Gate("busy")
    bench = Bench(gate, queue=2)
    for prompt in ("one", "two", "three"):
        await bench.ask(prompt)
    with pytest.raises(QueueFull, match="wait"):
        await bench.ask("four", "k4")
    gate.open()
    await bench.idle()
    assert bench.taken() == ["one", "two", "three"]
    assert isinstance(await bench.ask("four", "k4"), Started)


async def test_a_waiting_prompt_can_be_removed_once():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    await bench.ask("two", "k2")
    await bench.ask("three", "k3")
    await bench.manager.remove_queued("conv", "k2")
    with pytest.raises(NotQueued):
        await bench.manager.remove_queued("conv", "k2")
    gate.open()
    await bench.idle()
    assert bench.taken() == ["one", "three"]


async def test_a_waiting_prompt_is_run_now_and_its_key_keeps_its_answer():
    gate = Gate("busy")
    bench = Bench(gate)
    first = await bench.ask("one")
    await bench.ask("two", "k2")
    queued = await bench.ask("three", "k3")
    assert isinstance(first, Started)
    gate.open()
    assert await bench.manager.run_queued_now("conv", "k3") == first.inference_id
    assert bench.waiting() == ["three", "two"]
    await bench.idle()
    assert bench.taken() == ["one", "three", "two"]
    assert bench.ends() == ["cancelled", "completed", "completed"]
    assert await bench.answer("three", "k3") == (queued, True)


async def test_to_run_now_what_was_taken_up_already_ends_nothing():
    bench = Bench(Gate("first"), Gate("second"))
    await bench.ask("one")
    await bench.ask("two", "k2")
    await bench.manager.run_queued_now("conv", "k2")
    await asyncio.sleep(10)
    assert bench.taken() == ["one", "two"]
    with pytest.raises(NotQueued):
        await bench.manager.run_queued_now("conv", "k2")
    assert bench.ends() == ["cancelled"]
    await bench.manager.aclose()


async def test_cancel_lets_the_queue_go_on_and_may_empty_it():
    bench = Bench(Gate("for ever"))
    await bench.ask("one")
    await bench.ask("two")
    await bench.ask("three")
    await bench.manager.cancel("conv")
    await asyncio.sleep(10)
    assert bench.taken() == ["one", "two"]
    await bench.manager.cancel("conv", queue=True)
    await bench.idle()
    assert bench.taken() == ["one", "two"]
    assert bench.waiting() == []


async def test_a_queued_prompt_whose_profile_breaks_fails_and_the_next_one_runs():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    await bench.ask("two", profile="open")
    await bench.ask("three", profile="chat")
    bench.unbuildable = {"open"}
    gate.open()
    await bench.idle()
    assert bench.taken() == ["one", "two", "three"]
    assert bench.ends() == ["completed", "failed", "completed"]


async def test_a_queued_prompt_whose_profile_breaks_says_which_and_runs_nothing_else():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    await bench.ask("two", profile="open", overrides={"system_prompt": "x"})
    await bench.ask("three", profile="broken")
    bench.unbuildable = {"broken"}
    gate.open()
    await bench.idle()
    events = bench.sinks["conv"].events
    started = [event.profile for event in events if isinstance(event, InferenceStarted)]
    assert started == ["chat", "open", "broken"]
    assert bench.ends() == ["completed", "completed", "failed"]
    assert len(bench.engine.turns) == 2


async def test_closing_forgets_the_prompts_that_wait():
    bench = Bench(Gate("for ever"))
    await bench.ask("one")
    await bench.ask("two")
    await bench.manager.aclose()
    assert (bench.taken(), bench.ends(), bench.waiting()) == (["one"], ["cancelled"], [])


async def test_a_prompt_that_cannot_start_makes_no_conversation():
    bench = Bench()
    bench.unbuildable = {"broken"}
    with pytest.raises(RuntimeError):
        await bench.ask("one", "key", profile="broken")
    assert await bench.manager.find("conv") is None
    assert isinstance(await bench.ask("one", "key", owner=BERT), Started)


async def test_overrides_run_with_the_profile_they_were_checked_against():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one", profile="open")
    await bench.ask("two", overrides={"tools": []})
    await bench.ask("three", profile="chat")
    gate.open()
    await bench.idle()
    assert bench.built == ["open", "open", "chat"]


async def test_a_prompts_own_step_mode_begins_and_ends_with_its_inference():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    await bench.ask("two", profile="open", overrides={"step_mode": True})
    await bench.ask("three")
    session = bench.manager._sessions["conv"]
    assert not session.steps.enabled
    gate.open()
    await bench.idle()
    events = bench.sinks["conv"].events
    told = [
        event.step_mode if isinstance(event, SessionUpdated) else event.content
        for event in events
        if isinstance(event, SessionUpdated | PromptTaken)
    ]
    assert told == ["one", True, "two", False, "three"]


async def test_who_switches_step_mode_meanwhile_has_the_last_word():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one", profile="open", overrides={"step_mode": True})
    await bench.manager.set_step_mode("conv", True, by="anna")
    gate.open()
    await bench.idle()
    assert bench.manager._sessions["conv"].steps.enabled


async def test_to_stop_another_inference_empties_no_queue():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    await bench.ask("two")
    with pytest.raises(NoActiveInference):
        await bench.manager.cancel("conv", inference_id="another", queue=True)
    assert bench.waiting() == ["two"]
    gate.open()
    await bench.idle()
    assert bench.taken() == ["one", "two"]


# Idempotency


async def test_the_same_key_gets_the_first_answer_whatever_became_of_it():
    bench = Bench()
    first, replayed = await bench.answer("one", "key")
    assert not replayed
    await bench.idle()
    assert await bench.answer("one", "key") == (first, True)
    assert bench.taken() == ["one"]


async def test_a_queued_answer_is_replayed_as_it_was():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    queued = await bench.ask("two", "key")
    gate.open()
    await bench.idle()
    assert await bench.answer("two", "key") == (queued, True)
    assert bench.taken() == ["one", "two"]


async def test_thirty_equal_requests_at_once_start_one_inference():
    bench = Bench(Gate("busy"))
    answers = await asyncio.gather(*(bench.answer("one", "key") for _ in range(30)))
    assert len({answer for answer, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert bench.taken() == ["one"]


async def test_a_key_is_answered_by_a_server_that_takes_no_more_prompts():
    bench = Bench()
    first = await bench.ask("one", "key")
    await bench.manager.aclose()
    assert await bench.answer("one", "key") == (first, True)
    with pytest.raises(Draining):
        await bench.ask("two", "key2")


async def test_a_key_for_a_new_conversation_makes_one_conversation():
    bench = Bench()
    first = await bench.ask("one", "key", conv_id=None)
    again = await bench.ask("one", "key", conv_id=None)
    assert first.conv_id == again.conv_id


@pytest.mark.parametrize(
    "other", [{"prompt": "two"}, {"conv_id": "other"}, {"profile": "open"}, {"conv_id": None}]
)
async def test_the_same_key_for_another_request_is_refused(other: dict[str, str]):
    bench = Bench()
    await bench.ask("one", "key")
    with pytest.raises(KeyReused):
        await bench.ask(**{"prompt": "one", "key": "key", **other})


async def test_a_key_belongs_to_its_owner():
    bench = Bench()
    await bench.ask("one", "key")
    _, replayed = await bench.answer("one", "key", owner=BERT, conv_id="berts")
    assert not replayed


async def test_a_key_goes_along_with_a_visitor_who_signs_in():
    bench = Bench("Hello")
    first = await bench.ask("hi", "k")
    own = await bench.ask("hi", "k", owner=BERT, conv_id="bert")
    await bench.manager.transfer(ANNA, "user:7")
    assert await bench.answer("hi", "k", owner="user:7") == (first, True)
    await bench.manager.transfer("user:7", BERT)
    assert await bench.answer("hi", "k", owner=BERT, conv_id="bert") == (own, True)


async def test_a_refused_request_does_not_use_its_key_up():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.ask("one")
    with pytest.raises(RunInProgress):
        await bench.ask("two", "key", policy="reject")
    gate.open()
    await bench.idle()
    assert isinstance(await bench.ask("two", "key"), Started)


async def test_a_key_is_forgotten_after_its_time():
    bench = Bench(idempotency_seconds=60)
    await bench.ask("one", "key")
    await bench.idle()
    bench.now += 61_000
    _, replayed = await bench.answer("one", "key")
    assert not replayed


# Overrides


async def test_overrides_are_for_profiles_that_allow_them():
    bench = Bench()
    with pytest.raises(OverridesNotAllowed):
        await bench.ask("one", overrides={"system_prompt": "x"})
    assert await bench.manager.find("conv") is None


@pytest.mark.parametrize(
    "overrides", [{"sytem_prompt": "x"}, {"tools": ["rm"]}, {"system_prompt": 3}]
)
async def test_a_wrong_override_says_what_is_wrong_and_starts_nothing(
    overrides: dict[str, object],
):
    bench = Bench()
    with pytest.raises(BadOverride):
        await bench.ask("one", profile="open", overrides=overrides)
    assert await bench.manager.find("conv") is None


# Putting away and coming back


async def test_an_idle_session_is_unloaded_and_its_history_comes_back_whole():
    bench = Bench(evict_idle_seconds=300)
    await bench.ask("one")
    await bench.idle()
    bench.now += 301_000
    assert await bench.manager.evict_idle() == ("conv",)
    assert bench.unloaded == ["conv"]
    [info] = await bench.manager.owned_by(ANNA)
    assert (info.title, info.running) == ("one", False)
    await bench.ask("two")
    await bench.idle()
    statistics = bench.manager.statistics()
    assert (statistics.live, statistics.stored) == (1, 0)
    asked = [block.text for block in bench.engine.turns[-1].blocks if isinstance(block, User)]
    assert asked == ["one", "two"]


@pytest.mark.parametrize("enabled", [True, False])
async def test_step_mode_is_as_it_was_when_an_unloaded_session_comes_back(enabled: bool):
    bench = Bench()
    await bench.ask("one", profile="stepping")
    await bench.idle()
    await bench.manager.set_step_mode("conv", enabled, by="anna")
    bench.now += 301_000
    await bench.manager.evict_idle()
    for _ in ("stored", "live again"):
        info = await bench.manager.find("conv")
        assert info is not None
        assert info.step_mode is enabled
        await bench.ask("two", "two")
    await bench.idle()


@pytest.mark.parametrize("reason", ["watched", "running", "queued", "recent"])
async def test_a_session_in_use_is_not_unloaded(reason: str):
    bench = Bench(*([Gate("busy")] if reason in ("running", "queued") else []))
    await bench.ask("one")
    if reason == "queued":
        await bench.ask("two")
    if reason in ("watched", "recent"):
        await bench.idle()
    if reason == "watched":
        bench.watching.add("conv")
    if reason != "recent":
        bench.now += 10_000_000
    assert await bench.manager.evict_idle() == ()
    await bench.manager.aclose()


async def test_an_unloaded_conversation_is_not_inherited_by_who_knows_its_id():
    bench = Bench()
    await bench.ask("one")
    await bench.idle()
    bench.now += 301_000
    await bench.manager.evict_idle()
    with pytest.raises(ConversationNotFound):
        await bench.ask("mine now", owner=BERT)
    info = await bench.manager.find("conv")
    assert info is not None
    assert info.owner == ANNA


async def test_a_conversation_that_cannot_come_back_now_is_not_lost():
    bench = Bench(live_sessions=1)
    await bench.ask("one")
    await bench.idle()
    bench.now += 301_000
    await bench.manager.evict_idle()
    bench.watching.add("other")
    await bench.ask("x", conv_id="other")
    with pytest.raises(Draining):
        await bench.manager.open("conv", owner=BERT, profile=None)
    with pytest.raises(Draining):
        await bench.ask("two")
    bench.watching.clear()
    await bench.idle()
    await asyncio.sleep(10)
    with pytest.raises(ConversationNotFound):
        await bench.ask("mine now", owner=BERT)
    await bench.ask("two")
    await bench.idle()
    asked = [block.text for block in bench.engine.turns[-1].blocks if isinstance(block, User)]
    assert asked == ["one", "two"]


async def test_at_the_limit_what_was_unused_for_longest_makes_room():
    bench = Bench(live_sessions=2)
    for conv_id in ("conv", "b"):
        await bench.ask("x", conv_id=conv_id)
        bench.now += 1_000
        await asyncio.sleep(1)
    await bench.ask("x", conv_id="c")
    await asyncio.sleep(1)
    assert bench.unloaded == ["conv"]
    assert bench.manager.statistics().live == 2
    info = await bench.manager.find("conv")
    assert info is not None
    assert info.owner == ANNA


async def test_at_the_limit_with_all_in_use_a_new_conversation_is_refused():
    bench = Bench(Gate("busy"), live_sessions=2)
    await bench.ask("x", conv_id="conv")
    await bench.manager.open("b", owner=ANNA, profile=None)
    bench.watching.add("b")
    with pytest.raises(Draining):
        await bench.ask("x", conv_id="c")
    assert bench.unloaded == []
    await bench.manager.aclose()


async def test_a_profile_in_step_mode_switches_it_on():
    bench = Bench()
    await bench.ask("one")
    await bench.idle()
    await bench.ask("two", profile="stepping")
    info = await bench.manager.find("conv")
    assert info is not None
    assert info.step_mode


async def test_a_stream_that_cannot_be_unloaded_does_not_end_the_unloading():
    class Troubled(Bench):
        async def unload(self, conv_id: str) -> None:
            await super().unload(conv_id)
            raise OSError("the log is gone")

    bench = Troubled(evict_every_seconds=60)
    for conv_id in ("conv", "b"):
        await bench.ask("one", conv_id=conv_id)
        await asyncio.sleep(1)
        bench.now += 301_000
        await asyncio.sleep(61)
    assert bench.unloaded == ["conv", "b"]
    await bench.manager.aclose()


async def test_in_an_unloaded_conversation_nothing_runs_or_waits():
    bench = Bench()
    await bench.ask("one", "k")
    await bench.idle()
    bench.now += 301_000
    await bench.manager.evict_idle()
    with pytest.raises(NoActiveInference):
        await bench.manager.cancel("conv")
    with pytest.raises(NotQueued):
        await bench.manager.remove_queued("conv", "k")
    with pytest.raises(NotQueued):
        await bench.manager.run_queued_now("conv", "k")
    assert await bench.manager.pause_permissions("conv", "p") == frozenset()
    assert bench.manager.statistics().live == 0


async def test_an_old_conversation_is_forgotten_with_its_log():
    bench = Bench(conversation_ttl_seconds=3600)
    await bench.ask("one")
    await bench.idle()
    bench.now += 3_601_000
    await bench.manager.evict_idle()
    assert bench.forgotten == ["conv"]
    assert await bench.manager.find("conv") is None


async def test_beyond_the_memory_budget_the_least_recently_used_goes_first():
    bench = Bench(memory_bytes=300)
    for conv_id in ("conv", "b", "c"):
        await bench.ask("x", conv_id=conv_id)
        bench.now += 1_000
        await asyncio.sleep(1)
    bench.now += 301_000
    await bench.manager.evict_idle()
    assert bench.forgotten == ["conv"]


async def test_the_idle_are_unloaded_without_anybody_asking():
    bench = Bench(evict_every_seconds=60)
    await bench.ask("one")
    await bench.idle()
    bench.now += 301_000
    await asyncio.sleep(61)
    assert bench.unloaded == ["conv"]
    assert bench.manager.statistics().live == 0
    await bench.manager.aclose()
