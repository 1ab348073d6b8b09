"""What an operator is told of live sessions: in whichever way each is stuck, and no word of it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sessions_app.inference.errors import (
    ConversationNotFound,
    InferenceFailed,
    RunInProgress,
    ToolError,
)
from sessions_app.inference.events import (
    InferenceFinished,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    TextDelta,
    publish,
)
from sessions_app.inference.executor import DefaultToolExecutor
from sessions_app.inference.runner import InferenceRunner
from sessions_app.inference.toolloop import LoopConfig, ToolLoop
from sessions_app.inference.tools import MASK, ToolRegistry, tool
from sessions_app.inference.turns import LlmText, Other, Reasoning, ToolCall, Turn
from sessions_app.manager import ManagerLimits, SessionManager
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.stages import StageRecorder
from sessions_app.store import StoredConversation
from sessions_app.testing import Gate, IgnoreCancel, RecordingSink, ScriptedEngine, Sleep, Step
from sessions_app.values import (
    Ending,
    Idle,
    InferenceStages,
    LiveSession,
    Paused,
    PromptRequest,
    Running,
    SessionDetail,
    Stage,
    Stopping,
    ToolInfo,
    Transcript,
    Unloaded,
    WaitingForTools,
)

pytestmark = pytest.mark.virtual

ANNA = "user:7"
SECRET = "canary-1f0e"
PROFILES = Profiles(
    [
        Profile(
            slug="chat",
            title="Chat",
            model="scripted",
            system_prompt="Be brief.",
            tools=("look", "tell"),
            allow_overrides=True,
        ),
        Profile(slug="code", model="scripted"),
    ]
)


class Caller:
    """An engine that asks for tools in its first call, and says a word in its second."""

    model = "caller"

    def __init__(self, *calls: tuple[str, dict[str, Any]]) -> None:
        self._calls = calls

    async def infer(self, turn: Turn) -> Turn:
        await asyncio.sleep(2)
        if any(isinstance(block, ToolCall) for block in turn.blocks):
            publish(TextDelta("done"))
            return turn.with_blocks(LlmText(text="done"))
        publish(ModelCallFinished(stop_reason="tool_calls"))
        calls = [ToolCall(call_id="", name=name, arguments=args) for name, args in self._calls]
        return turn.with_blocks(*calls)


class Bench:
    """A manager on virtual time, which starts at 1 000 000 ms."""

    def __init__(self, engine: ScriptedEngine | Caller, *, persist: Gate | None = None) -> None:
        self.engine = engine
        self.gate = Gate("tool")
        self.persist = persist
        self.streams: list[str] = []
        begun = asyncio.get_running_loop().time()
        self.now = lambda: 1_000_000 + round((asyncio.get_running_loop().time() - begun) * 1000)

        @tool(secrets=frozenset({"token"}), timeout=1000)
        async def look(token: str, where: str = "") -> str:
            """Waits at the gate."""
            await self.gate.passed()
            return where

        @tool(requires_approval=True)
        async def tell(word: str) -> str:
            """Fails."""
            raise ToolError("no")

        self.tools = ToolRegistry([look, tell])
        self.manager = SessionManager(
            profiles=PROFILES,
            builder=self,
            streams=self,
            tools=self.tools,
            limits=ManagerLimits(evict_idle_seconds=60),
            turn_persister=self._persist,
            now_ms=self.now,
        )

    def build(self, session: Session) -> InferenceRunner:
        loop = ToolLoop(DefaultToolExecutor(), session.steps, config=LoopConfig())
        return InferenceRunner(self.engine, loop=loop, tools=self.tools, cancel_grace=5)

    async def _persist(self, conversation: StoredConversation) -> None:
        if self.persist is not None:
            await self.persist.passed()

    def sink(self, conv_id: str) -> RecordingSink:
        return RecordingSink()

    def watched(self, conv_id: str) -> bool:
        return False

    def size(self, conv_id: str) -> int:
        return 0

    async def unload(self, conv_id: str) -> None:
        self.streams.append(conv_id)

    def forget(self, conv_id: str) -> None: ...

    async def ask(self, prompt: str = SECRET, conv_id: str = "conv", **fields: Any) -> None:
        await self.manager.submit(
            PromptRequest(owner=ANNA, prompt=prompt, conv_id=conv_id, **fields)
        )

    async def ended(self, conv_id: str = "conv") -> None:
        """Long enough for whatever these tests start; the time is virtual."""
        await asyncio.sleep(20)
        assert isinstance((await self.session(conv_id)).state, Idle)

    async def session(self, conv_id: str = "conv") -> LiveSession:
        found = {session.conv_id: session for session in await self.manager.live()}
        return found[conv_id]

    async def detail(self, conv_id: str = "conv") -> SessionDetail:
        detail = await self.manager.inspect(conv_id)
        assert detail is not None
        return detail

    async def transcript(self, conv_id: str = "conv", *, turns: int = 50) -> Transcript:
        said = await self.manager.transcript(conv_id, turns=turns)
        assert said is not None
        return said

    async def last(self, conv_id: str = "conv") -> InferenceStages:
        return (await self.detail(conv_id)).inferences[-1]


def scripted(*steps: Step) -> Bench:
    return Bench(ScriptedEngine(*steps))


LOOK = ("look", {"token": SECRET, "where": SECRET})
TELL = ("tell", {"word": SECRET})


async def test_an_idle_session_says_since_when():
    bench = scripted()
    await bench.manager.open("conv", owner=ANNA, profile=None)
    await asyncio.sleep(5)

    assert await bench.session() == LiveSession(
        conv_id="conv",
        owner=ANNA,
        profile="chat",
        model="scripted",
        fingerprint=PROFILES.get("chat").fingerprint,
        state=Idle(since_ms=1_000_000),
        running_since_ms=None,
        queue_depth=0,
        step_mode=False,
        turns=0,
        errors=0,
        last_error=None,
        created_ms=1_000_000,
        last_activity_ms=1_000_000,
    )


async def test_a_running_one_says_since_when_and_how_long_it_was_silent():
    bench = scripted(Sleep(2), TextDelta("a"), Sleep(3), Gate("stuck"))
    await bench.ask()
    await asyncio.sleep(1)
    before = await bench.session()
    await asyncio.sleep(9)
    after = await bench.session()

    assert isinstance(before.state, Running)
    assert (before.running_since_ms, before.state.since_ms) == (1_000_000, 1_000_000)
    assert (before.state.model_call, before.state.answering) == (1, False)
    assert isinstance(after.state, Running)
    assert (after.state.answering, after.state.silent_since_ms) == (True, 1_002_000)
    await bench.manager.cancel("conv")
    await bench.ended()


async def test_one_that_waits_for_a_tool_names_it():
    bench = Bench(Caller(LOOK))
    await bench.ask()
    await bench.gate.reached()
    state = (await bench.session()).state

    assert isinstance(state, WaitingForTools)
    [waited] = state.tools
    assert waited == ToolInfo(call_id=waited.call_id, name="look", since_ms=1_002_000)
    assert state.since_ms == 1_002_000
    bench.gate.open()
    await bench.ended()


async def test_a_paused_one_says_until_when_and_what_waits():
    bench = Bench(Caller(TELL))
    await bench.ask()
    await asyncio.sleep(3)
    detail = await bench.detail()
    [pause] = detail.pauses

    assert isinstance(detail.session.state, Paused)
    assert (detail.session.state.since_ms, detail.session.state.until_ms) == (1_002_000, 1_302_000)
    assert (pause.since_ms, pause.deadline_ms) == (1_002_000, 1_302_000)
    assert (pause.phase, pause.approval, pause.on_timeout) == ("after_inference", True, "deny")
    assert pause.summary == "About to run tell"
    shown = (await bench.transcript()).pauses[pause.pause_id]
    assert shown["toolCalls"][0]["input"] == {"word": SECRET}
    await bench.manager.decide("conv", pause.pause_id, "skip", by="op")
    await bench.ended()
    assert (await bench.detail()).pauses == ()


async def test_one_that_does_not_stop_is_seen_stopping():
    never = Gate("never")
    bench = scripted(IgnoreCancel(never))
    await bench.ask()
    await asyncio.sleep(1)
    await bench.manager.cancel("conv")
    await asyncio.sleep(2)
    state = (await bench.session()).state

    assert isinstance(state, Stopping)
    assert state.since_ms == 1_001_000
    await bench.ended()
    assert (await bench.last()).outcome == "cancelled"
    never.open()


async def test_one_whose_turn_is_being_kept_is_seen_ending():
    gate = Gate("persister")
    bench = Bench(ScriptedEngine(Sleep(1), TextDelta("a")), persist=gate)
    await bench.ask()
    await gate.reached()
    await asyncio.sleep(4)
    state = (await bench.session()).state

    assert isinstance(state, Ending)
    assert state.since_ms == 1_001_000
    gate.open()
    await bench.ended()


async def test_the_queue_is_listed_without_its_words():
    bench = scripted(Gate("stuck"))
    await bench.ask()
    await asyncio.sleep(1)
    await bench.ask(idempotency_key="k1", profile="code")
    await asyncio.sleep(1)
    await bench.ask(idempotency_key="k2", overrides={"tools": []})
    detail = await bench.detail()

    assert detail.session.queue_depth == 2
    waiting = [(q.idempotency_key, q.position, q.since_ms) for q in detail.queue]
    assert waiting == [("k1", 1, 1_001_000), ("k2", 2, 1_002_000)]
    assert [(q.profile, q.overrides) for q in detail.queue] == [("code", False), ("chat", True)]
    assert (await bench.transcript()).prompts == {"k1": SECRET, "k2": SECRET}
    await bench.manager.cancel("conv", queue=True)
    await bench.ended()


async def test_errors_are_counted_and_the_last_sentence_is_kept():
    bench = scripted(InferenceFailed("The model is away."))
    for _ in range(2):
        await bench.ask()
        await bench.ended()
    session = await bench.session()

    assert (session.errors, session.last_error) == (2, "The model is away.")
    assert (await bench.last()).error == "The model is away."
    await asyncio.sleep(61)
    await bench.manager.evict_idle()
    await bench.manager.open("conv", owner=ANNA, profile=None)
    assert (await bench.session()).errors == 2


async def test_the_time_of_an_inference_is_told_stage_by_stage():
    bench = Bench(Caller(LOOK, LOOK, TELL))
    await bench.manager.open("conv", owner=ANNA, profile=None)
    await bench.ask("first")
    await asyncio.sleep(1)
    await bench.ask("second", idempotency_key="k2")
    await asyncio.sleep(4)
    [pause] = (await bench.detail()).pauses
    await bench.manager.decide("conv", pause.pause_id, "continue", by="op")
    await bench.gate.reached()
    await asyncio.sleep(10)
    bench.gate.open()
    await asyncio.sleep(3)
    first, second = (await bench.detail()).inferences

    assert (first.outcome, first.queued_ms, first.total_ms) == ("completed", 0, 17_000)
    assert (first.first_token_ms, first.model_ms, first.model_calls) == (17_000, 4_000, 2)
    assert (first.paused_ms, first.pauses) == (3_000, 1)
    assert (first.tools_ms, first.tool_calls) == (10_000, 3), "two at once count once"
    assert [(stage.kind, stage.name) for stage in first.stages[:2]] == [
        ("model", "caller"),
        ("pause", "after_inference"),
    ]
    assert Stage(kind="tool", name="look", start_ms=1_005_000, end_ms=1_015_000) in first.stages
    assert second.queued_ms == 16_000
    assert second.stages[0] == Stage(kind="queue", name="", start_ms=1_001_000, end_ms=1_017_000)
    await bench.manager.cancel("conv")
    await bench.ended()


async def test_so_many_stages_are_kept_and_the_rest_are_counted():
    recorder = StageRecorder(RecordingSink(), now_ms=lambda: 0)
    recorder.begin("i", profile="p", model="m", fingerprint="f", queued_since_ms=None)
    for _ in range(100):
        recorder.publish(
            ModelCallStarted(message_id="m", model="m"), Origin(inference_id="i", turn_id="t")
        )
    [inference] = recorder.inferences()

    assert (len(inference.stages), inference.dropped) == (65, 35), "64 ended ones and the open one"
    assert inference.model_calls == 100


async def test_the_last_inferences_are_handed_on_with_fewer_of_their_stages():
    clock = iter(range(10**6))
    recorder, other = (StageRecorder(RecordingSink(), now_ms=lambda: next(clock)) for _ in range(2))
    for name in "abcde":
        origin = Origin(inference_id=name, turn_id="t")
        recorder.begin(name, profile="p", model="m", fingerprint="f", queued_since_ms=None)
        for _ in range(40):
            recorder.publish(ModelCallStarted(message_id="m", model="m"), origin)
        recorder.publish(finished(name), origin)
    other.go_on_from(recorder.handed_on)

    told = other.inferences()
    assert [inference.inference_id for inference in told] == ["c", "d", "e"]
    for inference, short in zip(recorder.inferences()[2:], told, strict=True):
        assert (short.total_ms, short.model_calls) == (inference.total_ms, 40)
        assert short.stages == inference.stages[:16]
        assert (inference.dropped, short.dropped) == (0, 24)


def finished(inference_id: str) -> InferenceFinished:
    return InferenceFinished(
        inference_id=inference_id,
        status="completed",
        stop_reason="stop",
        model="m",
        duration_ms=1,
    )


async def test_only_the_last_inferences_are_kept():
    bench = scripted(TextDelta("a"))
    for _ in range(30):
        await bench.ask()
        await bench.ended()

    detail = await bench.detail()
    assert len(detail.inferences) == 20
    assert detail.session.turns == 30


async def test_what_is_not_the_transcript_holds_no_word():
    bench = Bench(Caller(LOOK, TELL))
    await bench.ask()
    await bench.ask()
    await asyncio.sleep(3)
    snapshot = [*await bench.manager.live(), await bench.detail()]

    assert SECRET.encode() not in msgspec.json.encode(snapshot)
    assert SECRET.encode() in msgspec.json.encode(await bench.transcript())
    await bench.manager.cancel("conv", queue=True)
    await bench.ended()


async def test_the_transcript_masks_declared_secrets_in_every_turn():
    bench = Bench(Caller(LOOK))
    bench.gate.open()
    for _ in range(3):
        await bench.ask("look")
        await bench.ended()
    said = await bench.transcript(turns=2)

    assert (said.title, said.system_prompt, len(said.turns)) == ("look", "Be brief.", 2)
    for turn in said.turns:
        [call] = [block for block in turn.blocks if isinstance(block, ToolCall)]
        assert call.arguments == {"token": MASK, "where": SECRET}
        assert turn.metadata.outcome == "completed"


async def test_the_transcript_leaves_out_what_only_a_provider_understands():
    class Opaque:
        model = "opaque"

        async def infer(self, turn: Turn) -> Turn:
            return turn.with_blocks(
                Reasoning(text="hm", signature=SECRET),
                Other(name="blob", props={"x": SECRET}),
                ToolCall(call_id="c", name="never", arguments={"a": 1}),
            )

    bench = Bench(Caller())
    bench.engine = Opaque()  # type: ignore[assignment] # any Engine will do
    await bench.ask("go")
    await bench.ended()

    assert SECRET.encode() not in msgspec.json.encode(await bench.transcript())


async def test_evicting_unloads_and_the_next_prompt_finds_the_history():
    bench = scripted(TextDelta("a"))
    await bench.ask("hello")
    await bench.ended()
    await bench.manager.evict("conv")

    assert await bench.manager.live() == ()
    assert bench.streams == ["conv"]
    detail = await bench.detail()
    assert isinstance(detail.session.state, Unloaded)
    assert (detail.session.turns, detail.session.owner) == (1, ANNA)
    assert (await bench.transcript()).title == "hello"
    with pytest.raises(ConversationNotFound):
        await bench.manager.evict("conv")
    await bench.ask("again")
    await bench.ended()
    assert (await bench.session()).turns == 2


async def test_a_busy_session_is_not_evicted():
    bench = scripted(Gate("stuck"))
    await bench.ask()
    with pytest.raises(RunInProgress, match="cancel them first"):
        await bench.manager.evict("conv")
    await bench.manager.cancel("conv")
    await bench.ended()


async def test_an_unknown_id_is_nothing():
    bench = scripted()
    assert await bench.manager.inspect("never") is None
    assert await bench.manager.transcript("never", turns=1) is None


async def test_looking_at_thousands_lets_others_have_their_turn():
    bench = scripted()
    for number in range(1000):
        await bench.manager.open(f"conv{number}", owner=ANNA, profile=None)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    somebody = asyncio.create_task(other())
    assert len(await bench.manager.live()) == 1000
    somebody.cancel()
    assert turns >= 5
