"""A kept conversation tells its history again: once, whole, and as it ended."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.history import retold
from sessions_app.inference.errors import StreamStalled
from sessions_app.inference.events import (
    Event,
    InferenceFinished,
    InferenceStarted,
    ModelCallFinished,
    ModelCallStarted,
    Origin,
    PromptTaken,
    TextDelta,
    ThinkingDelta,
    ToolCallFinished,
    ToolCallRequested,
)
from sessions_app.inference.runner import InferenceRunner
from sessions_app.inference.tools import MASK, ToolRegistry, tool
from sessions_app.inference.turns import (
    Block,
    LlmText,
    Other,
    Outcome,
    Reasoning,
    System,
    ToolCall,
    ToolUse,
    Turn,
    TurnMetadata,
    User,
)
from sessions_app.manager import SessionManager
from sessions_app.profiles import Profile, Profiles
from sessions_app.session import Session
from sessions_app.store import StoredConversation
from sessions_app.testing import RecordingSink, ScriptedEngine
from sessions_app.values import PromptRequest

CALL = ToolCall(call_id="call_1", name="pay", arguments={"pin": "4711"})
USE = ToolUse(call_id="call_1", text="paid")


def told(*turns: Turn) -> list[list[Event]]:
    return [list(events) for _, events in retold(turns, profile="chat")]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def ended(turn: Turn, outcome: Outcome, inference_id: str) -> Turn:
    return turn.with_metadata(TurnMetadata(inference_id=inference_id, outcome=outcome))


def test_a_prompt_with_thoughts_a_call_and_words_is_told_in_that_order():
    blocks = (System(text="s"), User(text="hi"), Reasoning(text="hm"), LlmText(text="Let me."))
    [events] = told(Turn(blocks=(*blocks, CALL, USE, Other(name="x", props={}), LlmText(text="!"))))

    assert kinds(events) == [
        *("PromptTaken", "InferenceStarted", "ModelCallStarted", "ThinkingDelta", "TextDelta"),
        *("ModelCallFinished", "ToolCallRequested", "ToolCallFinished"),
        *("ModelCallStarted", "TextDelta", "ModelCallFinished", "InferenceFinished"),
    ]


def test_of_the_last_turn_alone_each_prompt_is_an_inference_with_ids_that_stay():
    turn = Turn(blocks=(User(text="1"), LlmText(text="a", stopped=True), User(text="2")))
    first, second = told(turn)

    assert [e.status for e in (first[-1], second[-1]) if isinstance(e, InferenceFinished)] == [
        "cancelled",
        "completed",
    ]
    assert "ModelCallFinished" not in kinds(first)
    assert told(turn) == [first, second]


def test_turns_that_were_kept_name_their_inferences_and_how_they_ended():
    one = ended(Turn(blocks=(User(text="1"), LlmText(text="[no answer: failed]"))), "failed", "i1")
    two = ended(one.derive(User(text="2"), metadata=one.metadata), "max_iterations", "i2")
    origins = [origin for origin, _ in retold((one, two), profile="chat")]

    assert origins == [
        Origin(inference_id="i1", turn_id=one.id, retold=True),
        Origin(inference_id="i2", turn_id=two.id, retold=True),
    ]
    ends = [events[-1] for events in told(one, two)]
    assert [e.status for e in ends if isinstance(e, InferenceFinished)] == [
        "failed",
        "max_iterations",
    ]
    assert "TextDelta" not in kinds(told(one, two)[0])


def test_nothing_is_told_of_nothing():
    assert told() == told(Turn()) == told(Turn(blocks=(System(text="s"),))) == []


blocks = st.lists(
    st.one_of(
        st.builds(User, text=st.text()),
        st.builds(LlmText, text=st.text(), stopped=st.booleans()),
        st.builds(Reasoning, text=st.text()),
        st.builds(System, text=st.text()),
        st.just(CALL),
        st.just(USE),
    )
)


@given(blocks)
def test_whatever_the_blocks_each_prompt_has_one_end_and_no_word_is_lost(given: list[Block]):
    heard = told(Turn(blocks=tuple(given)))
    texts = [event.text for events in heard for event in events if isinstance(event, TextDelta)]
    first = next((n for n, block in enumerate(given) if isinstance(block, User)), len(given))

    assert texts == [block.text for block in given[first:] if isinstance(block, LlmText)]
    for events in heard:
        assert isinstance(events[0], PromptTaken)
        assert isinstance(events[1], InferenceStarted)
        assert kinds(events).count("InferenceFinished") == 1
        assert isinstance(events[-1], InferenceFinished)
        in_call = False
        for event in events:
            if isinstance(event, ModelCallStarted | ModelCallFinished):
                assert in_call is isinstance(event, ModelCallFinished)
                in_call = not in_call
            elif isinstance(event, TextDelta | ThinkingDelta):
                assert in_call
            elif isinstance(event, ToolCallRequested):
                assert not in_call


# The manager recalls


KEPT = StoredConversation(
    conv_id="conv",
    owner="visitor:anna",
    profile="chat",
    title="hi",
    created_ms=1,
    last_activity_ms=2,
    turns=(Turn(blocks=(User(text="hi"), LlmText(text="Let me."), CALL, USE)),),
)


@tool(secrets={"pin"})
async def pay(pin: str) -> str:
    return "paid"


class Bench:
    """A manager with an app's store behind it; it is its own builder, streams and store."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine("Hello.")
        self.loads = 0
        self.sinks: dict[str, RecordingSink] = {}
        self.unloaded: list[str] = []
        self.forgotten: list[str] = []
        self.manager = SessionManager(
            profiles=Profiles([Profile(slug="chat")]),
            builder=self,
            streams=self,
            tools=ToolRegistry([pay]),
            turn_store=self,
            now_ms=lambda: 1_000,
        )

    async def load(self, conv_id: str) -> StoredConversation | None:
        self.loads += 1
        await asyncio.sleep(1)
        return KEPT if conv_id == "conv" else None

    async def transfer(self, old_owner: str, new_owner: str) -> None:
        await asyncio.sleep(1)

    def build(self, session: Session) -> InferenceRunner:
        return InferenceRunner(self.engine)

    def sink(self, conv_id: str) -> RecordingSink:
        return self.sinks.setdefault(conv_id, RecordingSink())

    def watched(self, conv_id: str) -> bool:
        return False

    def size(self, conv_id: str) -> int:
        return 0

    async def unload(self, conv_id: str) -> None:
        self.unloaded.append(conv_id)

    def forget(self, conv_id: str) -> None:
        self.forgotten.append(conv_id)
        self.sinks.pop(conv_id, None)

    async def ask(self) -> None:
        await self.manager.submit(PromptRequest(owner="visitor:anna", prompt="?", conv_id="conv"))

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.sinks["conv"].events if isinstance(event, kind)]


@pytest.mark.virtual
async def test_requests_at_once_recall_a_conversation_once():
    bench = Bench()
    finding = [asyncio.create_task(bench.manager.find("conv")) for _ in range(5)]
    asking = [asyncio.create_task(bench.ask()) for _ in range(5)]
    finding[0].cancel()
    found = await asyncio.gather(*finding[1:])
    await asyncio.gather(*asking)

    assert [info and info.owner for info in found] == ["visitor:anna"] * 4
    assert bench.loads == 1
    assert bench.unloaded == ["conv"]
    [first, *_] = bench.told(PromptTaken)
    assert isinstance(first, PromptTaken)
    assert first.content == "hi"
    assert len(bench.told(ToolCallFinished)) == 1
    await bench.manager.aclose()


@pytest.mark.virtual
async def test_what_is_told_again_shows_no_secret_and_the_model_reads_what_was_kept():
    bench = Bench()
    await bench.ask()
    await asyncio.sleep(1)

    [asked] = bench.told(ToolCallRequested)
    assert isinstance(asked, ToolCallRequested)
    assert asked.input == {"pin": MASK}
    assert CALL in bench.engine.turns[0].blocks
    await bench.manager.aclose()


@pytest.mark.virtual
async def test_half_a_history_is_not_left_for_the_next_time():
    class Stalling(RecordingSink):
        def publish(self, event: Event, origin: Origin | None = None) -> None:
            if isinstance(event, ToolCallFinished):
                raise StreamStalled("too much")
            super().publish(event, origin)

    bench = Bench()
    bench.sinks["conv"] = Stalling()
    with pytest.raises(StreamStalled):
        await bench.manager.find("conv")
    assert bench.forgotten == ["conv"]

    assert await bench.manager.find("conv") is not None
    assert len(bench.told(InferenceFinished)) == 1


@pytest.mark.virtual
async def test_what_is_recalled_while_its_visitor_signs_in_goes_along():
    bench = Bench()
    transferring = asyncio.create_task(bench.manager.transfer("visitor:anna", "user:7"))
    await bench.manager.find("conv")
    await transferring
    info = await bench.manager.find("conv")

    assert info is not None
    assert info.owner == "user:7"
