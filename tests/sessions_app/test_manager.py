"""The manager finds, opens and ends sessions; it answers what transport asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessions_app.inference.errors import (
    ConversationNotFound,
    Draining,
    NoActiveInference,
    ProfileNotFound,
    RunInProgress,
)
from sessions_app.inference.events import InferenceFinished, SessionUpdated, TextDelta
from sessions_app.inference.runner import InferenceRunner
from sessions_app.manager import SessionManager
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.testing import FLUSHED, Gate, IgnoreCancel, RecordingSink, ScriptedEngine, Step
from sessions_app.values import PromptRequest, Started, Submitted

pytestmark = pytest.mark.virtual

PROFILES = Profiles([Profile(slug="chat"), Profile(slug="code")])
ANNA, BERT = "visitor:anna", "visitor:bert"


class Bench:
    """A manager whose sinks and clock are in our hands. It is also its builder."""

    def __init__(self, *steps: Step) -> None:
        self.engine = ScriptedEngine(*steps)
        self.sinks: dict[str, RecordingSink] = {}
        self.now = 1_000
        self.watching: set[str] = set()
        self.unloaded: list[str] = []
        self.forgotten: list[str] = []
        self.manager = SessionManager(
            profiles=PROFILES, builder=self, streams=self, now_ms=lambda: self.now
        )

    def build(self, session: Session) -> InferenceRunner:
        return InferenceRunner(self.engine, cancel_grace=5)

    def sink(self, conv_id: str) -> RecordingSink:
        return self.sinks.setdefault(conv_id, RecordingSink())

    def watched(self, conv_id: str) -> bool:
        return conv_id in self.watching

    def size(self, conv_id: str) -> int:
        return 0

    async def unload(self, conv_id: str) -> None:
        self.unloaded.append(conv_id)

    def forget(self, conv_id: str) -> None:
        self.forgotten.append(conv_id)

    async def open(self, conv_id: str = "conv", owner: str = ANNA) -> None:
        await self.manager.open(conv_id, owner=owner, profile=None)

    async def ask(
        self, prompt: str = "hi", conv_id: str | None = "conv", **fields: Any
    ) -> tuple[Submitted, bool]:
        request = PromptRequest(prompt=prompt, conv_id=conv_id, **{"owner": ANNA, **fields})
        return await self.manager.submit(request)

    async def submit(self, conv_id: str = "conv", profile: str | None = None) -> Started:
        """Started at once, or refused."""
        answer, replayed = await self.ask(conv_id=conv_id, profile=profile, policy="reject")
        assert isinstance(answer, Started)
        assert not replayed
        return answer

    async def running(self, conv_id: str = "conv") -> bool:
        info = await self.manager.find(conv_id)
        assert info is not None
        return info.running

    def ends(self, conv_id: str = "conv") -> list[InferenceFinished]:
        events = self.sinks[conv_id].events
        return [event for event in events if isinstance(event, InferenceFinished)]


async def test_find_never_creates_a_conversation():
    bench = Bench()
    assert await bench.manager.find("conv") is None
    assert await bench.manager.find("conv") is None
    assert bench.sinks == {}


async def test_open_creates_once_and_the_first_owner_and_profile_stay():
    bench = Bench()
    first = await bench.manager.open("conv", owner=ANNA, profile="code")
    again = await bench.manager.open("conv", owner=BERT, profile="chat")
    assert (first.owner, first.profile) == (again.owner, again.profile) == (ANNA, "code")


async def test_opening_announces_nothing():
    bench = Bench()
    await bench.open()
    assert bench.sinks["conv"].record == []


async def test_open_with_an_unknown_profile_creates_nothing():
    bench = Bench()
    with pytest.raises(ProfileNotFound):
        await bench.manager.open("conv", owner=ANNA, profile="nope")
    assert await bench.manager.find("conv") is None


async def test_submit_returns_once_the_start_is_in_the_log():
    gate = Gate("middle")
    bench = Bench(gate)
    await bench.open()
    started = await bench.submit()
    sink = bench.sinks["conv"]
    assert FLUSHED in sink.record
    assert [type(event).__name__ for event in sink.events][:2] == [
        "PromptTaken", "InferenceStarted"
    ]  # fmt: skip
    assert started.conv_id == "conv"
    assert started.idempotency_key
    assert await bench.running()
    gate.open()


async def test_submit_makes_an_absent_conversation_for_whoever_asks():
    bench = Bench()
    await bench.submit("absent")
    info = await bench.manager.find("absent")
    assert info is not None
    assert info.owner == ANNA


async def test_submit_to_somebody_elses_conversation_is_refused_as_if_it_were_absent():
    bench = Bench()
    await bench.open("conv", owner=BERT)
    with pytest.raises(ConversationNotFound):
        await bench.submit("conv")
    assert bench.sinks["conv"].record == []


async def test_submit_with_an_unknown_profile_changes_nothing():
    bench = Bench()
    await bench.open()
    with pytest.raises(ProfileNotFound):
        await bench.submit(profile="nope")
    assert bench.sinks["conv"].record == []


async def test_submit_while_one_runs_is_refused_and_the_other_conversation_is_free():
    gate = Gate("middle")
    bench = Bench(gate)
    await bench.open("conv")
    await bench.open("other")
    await bench.submit("conv")
    with pytest.raises(RunInProgress):
        await bench.submit("conv")
    await bench.submit("other")
    gate.open()
    await bench.manager.aclose()


async def test_of_many_prompts_at_once_exactly_one_is_taken():
    gate = Gate("middle")
    bench = Bench(gate)
    await bench.open()
    answers = await asyncio.gather(*(bench.submit() for _ in range(20)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(Started) == 1
    assert {type(answer) for answer in answers} == {Started, RunInProgress}
    kinds = [type(event).__name__ for event in bench.sinks["conv"].events]
    assert kinds.count("PromptTaken") == 1
    gate.open()


async def test_a_submit_that_goes_away_leaves_its_inference_running():
    class Slow(Bench):
        def sink(self, conv_id: str) -> RecordingSink:
            return self.sinks.setdefault(conv_id, RecordingSink(flush_gate=writing))

    writing, gate = Gate("flush"), Gate("middle")
    bench = Slow(gate)
    await bench.open()
    submitting = asyncio.create_task(bench.submit())
    await writing.reached()
    submitting.cancel()
    await asyncio.wait({submitting})
    assert await bench.running()
    writing.open()
    gate.open()


async def test_a_prompt_may_change_the_profile():
    bench = Bench(TextDelta("x"))
    await bench.open()
    await bench.submit(profile="code")
    assert isinstance(bench.sinks["conv"].events[0], SessionUpdated)
    info = await bench.manager.find("conv")
    assert info is not None
    assert info.profile == "code"


async def test_cancel_answers_with_the_id_until_the_end_is_in_the_log():
    gate = Gate("stubborn")
    bench = Bench(IgnoreCancel(gate))
    await bench.open()
    started = await bench.submit()
    await gate.reached()
    for _ in range(3):
        assert await bench.manager.cancel("conv") == started.inference_id
    await asyncio.sleep(6)
    with pytest.raises(NoActiveInference):
        await bench.manager.cancel("conv")
    assert [end.status for end in bench.ends()] == ["cancelled"]
    gate.open()


async def test_cancel_in_an_absent_conversation_is_refused():
    with pytest.raises(ConversationNotFound):
        await Bench().manager.cancel("absent")


async def test_the_conversations_of_an_owner_come_newest_activity_first():
    bench = Bench(TextDelta("x"))
    for at, conv_id in enumerate(("a", "b", "c")):
        bench.now = 1_000 + at
        await bench.open(conv_id)
    await bench.open("berts", owner=BERT)
    bench.now = 5_000
    await bench.submit("a")
    infos = await bench.manager.owned_by(ANNA)
    assert [info.conv_id for info in infos] == ["a", "c", "b"]
    assert await bench.manager.owned_by("visitor:nobody") == ()


async def test_transfer_gives_every_conversation_of_one_owner_to_the_other():
    bench = Bench()
    await bench.open("a", owner=ANNA)
    await bench.open("b", owner=ANNA)
    await bench.open("c", owner=BERT)
    assert set(await bench.manager.transfer(ANNA, "user:7")) == {"a", "b"}
    assert await bench.manager.owned_by(ANNA) == ()
    assert {info.conv_id for info in await bench.manager.owned_by("user:7")} == {"a", "b"}
    assert {info.conv_id for info in await bench.manager.owned_by(BERT)} == {"c"}
    assert await bench.manager.transfer(ANNA, "user:7") == ()


async def test_closing_ends_every_inference_as_cancelled_and_says_why():
    gate = Gate("middle")
    bench = Bench(TextDelta("Hel"), gate)
    for conv_id in ("a", "b"):
        await bench.open(conv_id)
        await bench.submit(conv_id)
    await bench.open("idle")
    await gate.reached()
    await bench.manager.aclose()
    for conv_id in ("a", "b"):
        [end] = bench.ends(conv_id)
        assert (end.status, end.error) == ("cancelled", "server restarting")
        assert bench.sinks[conv_id].record[-1] is FLUSHED
        assert not await bench.running(conv_id)
    assert bench.sinks["idle"].record == []


async def test_closing_waits_no_longer_than_the_grace_for_a_stubborn_engine():
    gate = Gate("stubborn")
    bench = Bench(IgnoreCancel(gate))
    await bench.open()
    await bench.submit()
    await gate.reached()
    before = asyncio.get_running_loop().time()
    await bench.manager.aclose()
    assert asyncio.get_running_loop().time() - before == 5
    assert [end.status for end in bench.ends()] == ["cancelled"]
    gate.open()


async def test_from_the_first_moment_of_closing_no_prompt_is_taken():
    gate = Gate("stubborn")
    bench = Bench(IgnoreCancel(gate))
    await bench.open("a")
    await bench.open("b")
    await bench.submit("a")
    await gate.reached()
    closing = asyncio.create_task(bench.manager.aclose())
    await asyncio.sleep(1)
    with pytest.raises(Draining):
        await bench.submit("b")
    with pytest.raises(Draining):
        await bench.manager.open("new", owner=ANNA, profile=None)
    assert (await bench.manager.open("a", owner=ANNA, profile=None)).running
    assert await bench.manager.find("new") is None
    gate.open()
    await closing


async def test_closing_closes_a_builder_that_holds_something_open_after_the_last_end():
    class Holding(Bench):
        ends_at_close: list[int]

        async def aclose(self) -> None:
            self.ends_at_close = [len(self.ends())]

    gate = Gate("stubborn")
    bench = Holding(IgnoreCancel(gate))
    await bench.open()
    await bench.submit()
    await gate.reached()
    await bench.manager.aclose()
    assert bench.ends_at_close == [1]
    gate.open()


async def test_closing_may_be_asked_for_again():
    bench = Bench()
    await bench.manager.aclose()
    await bench.manager.aclose()


async def test_the_profiles_are_told_in_configured_order():
    assert [profile.slug for profile in Bench().manager.profiles()] == ["chat", "code"]
