"""The model works in one mode at a time, is told which, and may ask for another."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sessions_app.inference.engine import chain
from sessions_app.inference.errors import ConfigurationError, InferenceFailed
from sessions_app.inference.events import AgentModeSwitched, Log, TextDelta, publishing_to
from sessions_app.inference.middleware import AgentModes, agent_mode, current_mode, system_prompt
from sessions_app.inference.runner import Cancellation, InferenceRunner
from sessions_app.inference.turns import (
    LlmText,
    Other,
    System,
    ToolCall,
    ToolUse,
    Turn,
    TurnMetadata,
    User,
)
from sessions_app.testing import Gate, RecordingSink, ScriptedEngine, Step

pytestmark = pytest.mark.virtual

MODES = AgentModes({"plan": "Make a plan.", "build": "Write code.", "review": "Find bugs."}, "plan")
TURN = Turn(
    blocks=(User(text="hi"),), metadata=TurnMetadata(session_id="s", inference_id="inference-1")
)


def switch(mode: str, analysis: str = "") -> str:
    told = msgspec.json.encode({"mode": mode, "analysis": analysis}).decode()
    return f"<modeSwitch>{told}</modeSwitch>"


class Agent:
    """An agent in a conversation, one model call after the other."""

    def __init__(self, turn: Turn = TURN) -> None:
        self.turn = turn
        self.sink = RecordingSink()
        self.told: list[Turn] = []

    async def say(self, *steps: Step | str) -> None:
        engine = ScriptedEngine(*(TextDelta(s) if isinstance(s, str) else s for s in steps))
        with publishing_to(self.sink):
            try:
                self.turn = await agent_mode(MODES)(engine.infer)(self.turn)
            finally:
                self.told += engine.turns

    @property
    def mode(self) -> str:
        return current_mode(self.turn, MODES)

    @property
    def insertions(self) -> list[str]:
        """What the model was told as its system in the last call."""
        return [block.text for block in self.told[-1].blocks if isinstance(block, System)]

    @property
    def switches(self) -> list[AgentModeSwitched]:
        return [event for event in self.sink.events if isinstance(event, AgentModeSwitched)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.sink.events if isinstance(event, Log)]


async def test_the_model_is_told_its_mode_and_its_prompt():
    agent = Agent()
    await agent.say("ok")
    (told,) = agent.insertions
    assert told.startswith("<currentMode>plan</currentMode>\n\nMake a plan.\n\n")
    assert "another mode (build, review)" in told


async def test_the_insertion_stands_after_the_system_prompt_and_never_twice():
    engine = ScriptedEngine(TextDelta("ok"))
    infer = chain(engine.infer, (system_prompt("be brief"), agent_mode(MODES), agent_mode(MODES)))
    turn = TURN
    with publishing_to(RecordingSink()):
        for _ in range(4):
            turn = await infer(turn)
    first, second = [b.text for b in engine.turns[-1].blocks if isinstance(b, System)]
    assert first == "be brief"
    assert second.startswith("<currentMode>plan")
    assert [block.text for block in turn.blocks if isinstance(block, System)] == ["be brief"]


async def test_a_switch_counts_from_the_next_call_on_and_survives():
    agent = Agent()
    await agent.say("Done. ", switch("build", "the plan stands"))
    assert agent.insertions[0].startswith("<currentMode>plan<")
    (switched,) = agent.switches
    assert (switched.previous, switched.current) == ("plan", "build")
    assert switched.analysis == "the plan stands"
    stored = msgspec.json.decode(msgspec.json.encode(agent.turn), type=Turn)
    later = Agent(stored)
    for _ in range(3):
        await later.say("ok")
        assert later.insertions[0].startswith("<currentMode>build</currentMode>\n\nWrite code.")
    assert not later.switches
    assert sum(isinstance(block, Other) for block in later.turn.blocks) == 1


async def test_the_request_reaches_neither_the_page_nor_the_history():
    agent = Agent()
    await agent.say("Done.<mode", "Switch>", '{"mode": "build"}</modeSw', "itch> Bye.")
    assert agent.sink.text == "Done. Bye."
    assert agent.turn.blocks[-1] == LlmText(id=agent.turn.blocks[-1].id, text="Done. Bye.")
    assert agent.mode == "build"


async def test_only_the_text_of_this_call_can_switch():
    text = switch("build")
    old = TURN.with_blocks(
        LlmText(text=text),
        User(text=text),
        ToolCall(call_id="c", name="t", arguments={"text": text}),
        ToolUse(call_id="c", text=text),
    )
    agent = Agent(old)
    await agent.say("ok")
    await agent.say("ok")
    assert agent.mode == "plan"
    assert not agent.switches


async def test_an_unknown_mode_is_a_warning_and_no_switch():
    agent = Agent()
    await agent.say(switch("biuld"))
    assert agent.mode == "plan"
    assert not agent.switches
    assert agent.warnings == [
        "The agent asked for an unknown mode 'biuld'; expected one of: build, plan, review. "
        "Did you mean 'build'?"
    ]


@pytest.mark.parametrize("text", ["build", "{", '{"analysis": "x"}', '{"mode": 1}', "[]"])
async def test_a_request_that_cannot_be_read_is_a_warning_and_no_switch(text: str):
    agent = Agent()
    await agent.say(f"<modeSwitch>{text}</modeSwitch>")
    assert agent.mode == "plan"
    assert not agent.switches
    assert "A <modeSwitch> block could not be read" in agent.warnings[0]


async def test_a_switch_to_the_mode_it_is_in_is_none():
    agent = Agent()
    await agent.say(switch("plan"))
    assert not agent.switches
    assert not agent.warnings


async def test_of_two_requests_the_last_one_stays():
    agent = Agent()
    await agent.say(switch("build"), switch("review"))
    assert [(s.previous, s.current) for s in agent.switches] == [
        ("plan", "build"),
        ("build", "review"),
    ]
    assert agent.mode == "review"


async def test_a_call_that_fails_switches_nothing():
    agent = Agent()
    with pytest.raises(InferenceFailed):
        await agent.say(switch("build"), InferenceFailed("no"))
    assert agent.mode == "plan"
    assert not agent.switches


async def test_a_mode_that_is_no_longer_configured_gives_way_to_the_default():
    state = Other(name="agent_mode", props={"mode": "retired"})
    agent = Agent(Turn(blocks=(state, *TURN.blocks)))
    await agent.say("ok")
    assert agent.insertions[0].startswith("<currentMode>plan<")
    states = [block.props for block in agent.turn.blocks if isinstance(block, Other)]
    assert states == [{"mode": "plan"}]


async def test_the_answer_stays_the_last_block():
    runner = InferenceRunner(
        ScriptedEngine(TextDelta("ok")), middlewares=[agent_mode(MODES)], timeout=60
    )
    turn = await runner.run(TURN, sink=RecordingSink(), cancellation=Cancellation())
    assert isinstance(turn.blocks[-1], LlmText)
    assert turn.blocks[-1].text == "ok"


async def test_what_a_stopped_call_left_in_the_history_does_not_pile_up():
    turn = TURN
    for _ in range(3):
        gate = Gate("middle")
        runner = InferenceRunner(ScriptedEngine(gate), middlewares=[agent_mode(MODES)])
        cancellation = Cancellation()
        task = asyncio.create_task(
            runner.run(turn, sink=RecordingSink(), cancellation=cancellation)
        )
        await gate.reached()
        cancellation.request()
        turn = await task
    assert sum(isinstance(block, System) for block in turn.blocks) <= 1
    agent = Agent(turn)
    await agent.say("ok")
    assert len(agent.insertions) == 1
    assert not any(isinstance(block, System) for block in agent.turn.blocks)


def test_a_default_that_is_no_mode_is_refused():
    with pytest.raises(ConfigurationError, match="unknown mode 'plam'; expected one of: plan"):
        AgentModes({"plan": ""}, "plam")


@pytest.mark.parametrize("name", ["", "a<b", "a b", "x" * 65])
def test_a_mode_whose_name_cannot_stand_in_a_tag_is_refused(name: str):
    with pytest.raises(ConfigurationError, match="cannot stand in a tag"):
        AgentModes({name: ""}, name)


def test_the_only_mode_is_offered_no_switch():
    assert AgentModes({"a": ""}, "a").instructions("a") == "<currentMode>a</currentMode>"
