"""What inferences, tokens and tool calls leave in the metrics, and how little a label can hold."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from sessions_app.inference.events import (
    Event,
    InferenceFinished,
    ModelCallFinished,
    Origin,
    TextDelta,
    ToolCallFinished,
    ToolCallRequested,
    ToolCallStarted,
    Usage,
)
from sessions_app.inference.runner import InferenceRunner
from sessions_app.manager import SessionManager
from sessions_app.metrics import SessionCollector, SessionMetrics
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.testing import Gate, RecordingSink, ScriptedEngine, Sleep, Step
from sessions_app.values import PromptRequest
from tests.metrics import Samples, scraped

pytestmark = pytest.mark.virtual


class Bench:
    """A manager with metrics; it is also its builder and its streams."""

    def __init__(self, *steps: Step) -> None:
        self.engine = ScriptedEngine(*steps)
        self.ended = asyncio.Event()
        self.registry = CollectorRegistry()
        metrics = SessionMetrics(
            self.registry,
            tools=["calc", "docs_*"],
            clock=lambda: asyncio.get_running_loop().time(),
        )
        self.manager = SessionManager(
            profiles=Profiles([Profile(slug="chat"), Profile(slug="code")]),
            builder=self,
            streams=self,
            observers=[self.broken, metrics],
        )
        self.registry.register(SessionCollector(self.manager.statistics))

    def broken(self, conv_id: str, event: Event, origin: Origin | None) -> None:
        if isinstance(event, InferenceFinished):
            self.ended.set()
        if isinstance(event, TextDelta):
            raise RuntimeError("an observer with a bug")

    def build(self, session: Session) -> InferenceRunner:
        return InferenceRunner(self.engine)

    def sink(self, conv_id: str) -> RecordingSink:
        return RecordingSink()

    def watched(self, conv_id: str) -> bool:
        return False

    def size(self, conv_id: str) -> int:
        return 0

    async def unload(self, conv_id: str) -> None: ...

    def forget(self, conv_id: str) -> None: ...

    async def ask(self, profile: str = "chat", conv_id: str = "conv") -> None:
        request = PromptRequest(owner="visitor:a", prompt="hi", profile=profile, conv_id=conv_id)
        await self.manager.submit(request)

    async def answer(self, profile: str = "chat") -> None:
        self.ended.clear()
        await self.ask(profile)
        async with asyncio.timeout(60):
            await self.ended.wait()

    def read(self) -> Samples:
        return scraped(self.registry)


async def test_inferences_are_counted_by_profile_and_outcome():
    bench = Bench(TextDelta("hello"))
    await bench.answer("chat")
    await bench.answer("code")
    bench.engine.play(ValueError("broken"))
    await bench.answer("code")
    assert bench.read()["webchat_inferences_total"] == {
        ("chat", "completed"): 1,
        ("code", "completed"): 1,
        ("code", "failed"): 1,
    }


async def test_the_first_token_and_the_whole_are_timed_from_the_prompt():
    bench = Bench(Sleep(3), TextDelta("one"), Sleep(4), TextDelta("two"))
    await bench.answer()
    seen = bench.read()
    assert seen["webchat_time_to_first_token_seconds_count"]["chat",] == 1
    assert seen["webchat_time_to_first_token_seconds_sum"]["chat",] == pytest.approx(3)
    assert seen["webchat_inference_duration_seconds_sum"]["chat",] == pytest.approx(7)


async def test_tokens_are_the_providers_numbers():
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=60)
    bench = Bench(TextDelta("hello"), ModelCallFinished(usage=usage))
    await bench.answer()
    await bench.answer()
    seen = bench.read()
    assert seen["webchat_tokens_total"] == {("input", "chat"): 200, ("output", "chat"): 40}
    assert seen["webchat_cached_tokens_total"] == {("chat",): 120}


async def test_tool_calls_are_counted_and_those_that_ran_are_timed():
    def call(call_id: str, name: str, status: str, *, ran: bool) -> list[Step]:
        return [
            ToolCallRequested(call_id=call_id, name=name, input={}),
            *([ToolCallStarted(call_id=call_id, input={})] if ran else []),
            ToolCallFinished(call_id=call_id, result="", status=status, duration_ms=1500),  # type: ignore[arg-type]
        ]

    bench = Bench(
        *call("1", "calc", "success", ran=True),
        *call("2", "calc", "denied", ran=False),
        *call("3", "docs_search", "success", ran=False),
        *call("4", "docs_made_up", "error", ran=False),
        ToolCallRequested(call_id="5", name="calc", input={}),
        *[step for n in range(50) for step in call(f"x{n}", f"made-up-{n}", "error", ran=False)],
        TextDelta("done"),
    )
    await bench.answer()
    seen = bench.read()
    assert seen["webchat_tool_calls_total"] == {
        ("success", "calc"): 1,
        ("denied", "calc"): 1,
        ("cancelled", "calc"): 1,
        ("success", "docs_*"): 1,
        ("error", "docs_*"): 1,
        ("error", "unknown"): 50,
    }
    assert seen["webchat_tool_call_duration_seconds_count"] == {("calc",): 1}
    assert seen["webchat_tool_call_duration_seconds_sum"] == {("calc",): 1.5}


async def test_sessions_are_in_one_state_each_and_prompts_that_wait_are_seen():
    gate = Gate("busy")
    bench = Bench(gate)
    await bench.manager.open("idle", owner="visitor:a", profile=None)
    await bench.ask()
    await bench.ask()
    await gate.reached()
    seen = bench.read()
    assert seen["webchat_sessions"] == {("idle",): 1, ("running",): 1, ("paused",): 0}
    assert seen["webchat_queued_prompts"][()] == 1
    gate.open()
    await bench.manager.aclose()


async def test_an_observer_with_a_bug_costs_neither_the_answer_nor_the_others(
    caplog: pytest.LogCaptureFixture,
):
    bench = Bench(TextDelta("hello"))
    await bench.answer()
    assert bench.read()["webchat_inferences_total"]["chat", "completed"] == 1
    assert "an observer raised at TextDelta" in caplog.text
