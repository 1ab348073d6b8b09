"""A turn is a value: every verb gives another one, and blocks are shared."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.inference.turns import (
    Block,
    LlmText,
    Other,
    Reasoning,
    System,
    Turn,
    TurnMetadata,
    User,
)

texts = st.text(max_size=20)
blocks = st.one_of(
    st.builds(System, text=texts),
    st.builds(User, text=texts),
    st.builds(LlmText, text=texts, stopped=st.booleans()),
    st.builds(Reasoning, text=texts, signature=st.none() | texts, provider=st.none() | texts),
    st.builds(Other, name=texts, props=st.dictionaries(texts, st.none() | st.integers(0, 99))),
)
turns = st.builds(
    lambda parts: Turn(blocks=tuple(parts), metadata=TurnMetadata(session_id="s")),
    st.lists(blocks, max_size=6),
)


def test_a_new_block_makes_another_turn_and_leaves_the_first_as_it_was():
    first = Turn(blocks=(User(text="hi"),))
    second = first.with_blocks(LlmText(text="hello"))
    assert [type(block) for block in first.blocks] == [User]
    assert [type(block) for block in second.blocks] == [User, LlmText]
    assert second.id == first.id


def test_a_turn_and_a_block_refuse_to_be_changed_in_place():
    turn = Turn(blocks=(User(text="hi"),))
    with pytest.raises(AttributeError):
        turn.blocks = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        turn.blocks[0].id = "other"  # type: ignore[misc]


def test_a_derived_turn_has_a_new_id_and_shares_every_block():
    first = Turn(blocks=(User(text="hi"), LlmText(text="hello")))
    second = first.derive(User(text="again"), metadata=TurnMetadata(session_id="s"))
    assert second.id != first.id
    assert all(a is b for a, b in zip(first.blocks, second.blocks, strict=False))
    assert second.blocks[-1].text == "again"  # type: ignore[union-attr]
    assert second.metadata.session_id == "s"


@given(turns, st.text(min_size=1, max_size=20))
def test_the_system_prompt_comes_first_once_however_often_it_is_set(turn: Turn, text: str):
    once = turn.with_system(text)
    twice = once.with_system(text)
    assert once == twice
    assert [type(block) for block in once.blocks].count(System) == 1
    assert isinstance(once.blocks[0], System)
    assert once.blocks[0].text == text
    others = [block for block in turn.blocks if not isinstance(block, System)]
    assert all(a is b for a, b in zip(others, once.blocks[1:], strict=True))


def test_another_system_prompt_replaces_the_first():
    turn = Turn(blocks=(User(text="hi"),)).with_system("be brief").with_system("be kind")
    assert [block.text for block in turn.blocks if isinstance(block, System)] == ["be kind"]


@given(turns)
def test_a_turn_survives_the_way_through_json(turn: Turn):
    assert msgspec.json.decode(msgspec.json.encode(turn), type=Turn) == turn


def test_each_block_gets_an_id_of_its_own():
    made: list[Block] = [User(text="x") for _ in range(50)]
    assert len({block.id for block in made}) == 50
