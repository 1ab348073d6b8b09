"""Middlewares stand around the engine in the order they are listed."""

from __future__ import annotations

import pytest

from sessions_app.inference.engine import Infer, Middleware, chain
from sessions_app.inference.middleware import system_prompt
from sessions_app.inference.turns import LlmText, System, Turn, User

pytestmark = pytest.mark.virtual


async def echo(turn: Turn) -> Turn:
    return turn.with_blocks(LlmText(text=f"{len(turn.blocks)} blocks"))


def naming(name: str, seen: list[str]) -> Middleware:
    def middleware(infer: Infer) -> Infer:
        async def named(turn: Turn) -> Turn:
            seen.append(f"into {name}")
            answered = await infer(turn)
            seen.append(f"out of {name}")
            return answered

        return named

    return middleware


async def test_the_first_listed_middleware_is_the_outermost():
    seen: list[str] = []
    await chain(echo, (naming("first", seen), naming("second", seen)))(Turn())
    assert seen == ["into first", "into second", "out of second", "out of first"]


async def test_without_middlewares_the_engine_is_asked_itself():
    assert chain(echo, ()) is echo


async def test_a_middleware_may_answer_without_the_engine():
    async def never(turn: Turn) -> Turn:
        raise AssertionError("the engine was asked")

    def canned(infer: Infer) -> Infer:
        return echo

    answered = await chain(never, (canned,))(Turn())
    assert isinstance(answered.blocks[-1], LlmText)


async def test_the_system_prompt_reaches_the_engine_as_the_first_block():
    answered = await chain(echo, (system_prompt("be brief"),))(Turn(blocks=(User(text="hi"),)))
    assert [type(block) for block in answered.blocks] == [System, User, LlmText]


async def test_setting_the_system_prompt_again_changes_nothing():
    infer = chain(echo, (system_prompt("be brief"), system_prompt("be brief")))
    once = await infer(Turn(blocks=(User(text="hi"),)))
    again = await infer(once)
    assert [block.text for block in again.blocks if isinstance(block, System)] == ["be brief"]


async def test_the_turn_that_was_passed_in_keeps_its_blocks():
    turn = Turn(blocks=(System(text="be loud"), User(text="hi")))
    before = turn.blocks
    await chain(echo, (system_prompt("be brief"),))(turn)
    assert turn.blocks is before


async def test_an_empty_system_prompt_adds_no_block():
    answered = await chain(echo, (system_prompt(""),))(Turn(blocks=(User(text="hi"),)))
    assert not any(isinstance(block, System) for block in answered.blocks)
