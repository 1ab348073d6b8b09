"""Whatever a history holds, the ordered turn is one that the strictest provider accepts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.inference.executor import CANCELLED
from sessions_app.inference.middleware import block_ordering, ordered
from sessions_app.inference.turns import (
    Block,
    LlmText,
    Other,
    Reasoning,
    System,
    ToolCall,
    ToolUse,
    Turn,
    User,
)
from sessions_app.testing import ScriptedEngine
from tests.rules import complaints

ids = st.sampled_from(["a", "b", "c", "a_2", ""])
words = st.text(max_size=5)
calls = st.builds(ToolCall, call_id=ids, name=st.just("t"), arguments=st.just({}))
uses = st.builds(ToolUse, call_id=ids, text=words)
rest: st.SearchStrategy[Block] = st.one_of(
    st.builds(System, text=words),
    st.builds(User, text=words),
    st.builds(LlmText, text=words),
    st.builds(Reasoning, text=words),
    st.builds(Other, name=words, props=st.just({})),
)
histories = st.lists(st.one_of(calls, uses, rest), max_size=14).map(lambda b: Turn(blocks=tuple(b)))


def call(name: str) -> ToolCall:
    return ToolCall(id=f"call-{name}", call_id=name, name="t", arguments={})


def use(name: str, text: str = "42") -> ToolUse:
    return ToolUse(id=f"use-{name}-{text}", call_id=name, text=text)


def after(*blocks: Block) -> list[Block]:
    turn = ordered(Turn(blocks=blocks))
    assert not complaints(turn)
    return list(turn.blocks)


@given(histories)
def test_the_strictest_provider_accepts_it(turn: Turn):
    assert not complaints(ordered(turn)), ordered(turn).blocks


@given(histories)
def test_ordering_again_changes_nothing(turn: Turn):
    assert ordered(ordered(turn)) == ordered(turn)


@given(histories)
def test_nothing_is_lost_and_nothing_doubled(turn: Turn):
    blocks = ordered(turn).blocks
    made_up = [block for block in blocks if block.id.endswith(":result")]
    kept = Counter(block.id for block in blocks if block not in made_up)
    assert kept == Counter(block.id for block in turn.blocks)
    assert all(isinstance(b, ToolUse) and b.status == "cancelled" for b in made_up)
    texts = Counter(b.text for b in turn.blocks if isinstance(b, ToolUse))
    shown = Counter(b.text for b in blocks if isinstance(b, ToolUse) and b not in made_up)
    unmatched = [b for b in blocks if isinstance(b, Other) and b.name == "unmatched_tool_use"]
    assert shown + Counter(str(b.props["text"]) for b in unmatched) == texts


@given(histories)
def test_all_but_results_stay_in_their_order(turn: Turn):
    def told(turn: Turn) -> list[str]:
        kinds = System | User | LlmText | Reasoning | ToolCall
        system = [b.id for b in turn.blocks if isinstance(b, System)]
        others = [b.id for b in turn.blocks if isinstance(b, kinds) and not isinstance(b, System)]
        return system + others

    assert told(ordered(turn)) == told(turn)


@given(histories)
def test_the_turn_that_was_given_is_left_as_it_was(turn: Turn):
    before = turn.blocks
    first = ordered(turn)
    assert ordered(turn) == first
    assert turn.blocks is before
    assert (first.id, first.metadata) == (turn.id, turn.metadata)


@given(st.lists(st.lists(st.integers(1, 3), max_size=3), max_size=4))
def test_a_history_as_our_tool_loop_writes_it_is_not_touched(prompts: list[list[int]]):
    blocks: list[Block] = [System(text="be brief")]
    for number, model_calls in enumerate(prompts):
        blocks.append(User(text="hi"))
        for step, parallel in enumerate(model_calls):
            names = [f"{number}-{step}-{at}" for at in range(parallel)]
            blocks += [LlmText(text="so"), *map(call, names), *map(use, names)]
        blocks.append(LlmText(text="done"))
    turn = Turn(blocks=tuple(blocks))
    assert not complaints(turn)
    assert ordered(turn) == turn


def test_the_system_comes_first():
    blocks = after(User(id="u", text="hi"), System(id="s", text="be brief"))
    assert [block.id for block in blocks] == ["s", "u"]


def test_the_results_of_a_run_follow_it_in_call_order():
    assert after(call("a"), call("b"), use("b"), use("a")) == [
        call("a"),
        call("b"),
        use("a"),
        use("b"),
    ]


def test_a_result_comes_back_to_its_call_from_wherever_it_stands():
    text = LlmText(id="t", text="so")
    assert after(call("a"), text, call("b"), use("b"), use("a")) == [
        call("a"),
        use("a"),
        text,
        call("b"),
        use("b"),
    ]


def test_a_call_made_with_a_result_known_is_not_joined_with_the_one_before():
    blocks: list[Block] = [call("a"), use("a"), call("b"), use("b")]
    assert after(*blocks) == blocks


def test_a_call_without_a_result_gets_one_that_says_its_outcome_is_unknown():
    blocks = after(call("a"), User(text="and?"))
    assert isinstance(blocks[1], ToolUse)
    assert (blocks[1].call_id, blocks[1].status, blocks[1].text) == ("a", "cancelled", CANCELLED)


def test_a_result_that_no_call_asked_for_is_kept_where_no_provider_is_sent_it():
    blocks = after(User(id="u", text="hi"), use("x"))
    assert isinstance(blocks[1], Other)
    assert blocks[1].name == "unmatched_tool_use"
    assert blocks[1].props == {"call_id": "x", "status": "success", "text": "42"}


def test_a_second_result_of_a_call_is_kept_in_the_same_way():
    blocks = after(call("a"), use("a", "first"), use("a", "second"))
    assert blocks[:2] == [call("a"), use("a", "first")]
    assert isinstance(blocks[2], Other)
    assert blocks[2].props["text"] == "second"


def test_a_repeated_id_is_replaced_in_the_call_and_in_its_result():
    again = ToolCall(id="again", call_id="a", name="t", arguments={})
    blocks = after(call("a"), use("a", "first"), again, use("a", "second"))
    assert blocks[:2] == [call("a"), use("a", "first")]
    assert isinstance(blocks[2], ToolCall)
    assert isinstance(blocks[3], ToolUse)
    assert (blocks[2].id, blocks[2].call_id) == ("again", "a_2")
    assert (blocks[3].call_id, blocks[3].text) == ("a_2", "second")


def test_the_checker_of_these_tests_has_teeth():
    refused: list[list[Block]] = [
        [User(text="hi"), System(text="late")],
        [call("a")],
        [call("a"), User(text="hi"), use("a")],
        [call("a"), LlmText(text="so"), use("a")],
        [call("a"), call("b"), use("b"), use("a")],
        [call("a"), use("a"), use("a", "again")],
        [call("a"), use("a"), call("a"), use("a")],
        [use("x")],
        [LlmText(text="hi"), use("x")],
        [call(""), use("")],
    ]
    for bad in refused:
        assert complaints(Turn(blocks=tuple(bad))), bad


@pytest.mark.virtual
async def test_the_engine_is_given_the_ordered_turn():
    engine = ScriptedEngine()
    turn = Turn(blocks=(call("a"), User(text="and?")))
    await block_ordering()(engine.infer)(turn)
    assert engine.turns == [ordered(turn)]
