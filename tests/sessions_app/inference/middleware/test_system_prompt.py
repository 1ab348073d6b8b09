"""The profile's system prompt is the one the model reads."""

from __future__ import annotations

import pytest

from sessions_app.inference.middleware import system_prompt
from sessions_app.inference.turns import Block, System, Turn, User
from sessions_app.testing import ScriptedEngine

pytestmark = pytest.mark.virtual
HI = User(text="hi")


async def seen(text: str, *before: Block) -> list[Block]:
    """What an engine behind the middleware is given."""
    engine = ScriptedEngine()
    await system_prompt(text)(engine.infer)(Turn(blocks=before))
    return list(engine.turns[0].blocks)


async def test_it_comes_first():
    assert await seen("be brief", HI) == [System(id="system", text="be brief"), HI]


async def test_it_replaces_whatever_stood_there():
    before = (System(text="be loud"), HI, System(id="agent-mode", text="be odd"))
    assert await seen("be brief", *before) == [System(id="system", text="be brief"), HI]


async def test_setting_it_again_changes_nothing():
    once = await seen("be brief", HI)
    assert await seen("be brief", *once) == once


async def test_an_empty_one_leaves_no_system_block():
    assert await seen("", System(text="be loud"), HI) == [HI]
