"""examples/thinking_mode: what the middleware tells the model, and the page."""

from __future__ import annotations

import pytest

from examples.thinking_mode.events import KIND, added_up
from examples.thinking_mode.middleware import ThinkingLevels, thinking_mode
from sessions_app.inference.events import AppEvent, ThinkingDelta, publishing_to
from sessions_app.inference.turns import Reasoning, System, Turn, TurnMetadata, User
from sessions_app.testing import RecordingSink, ScriptedEngine

pytestmark = pytest.mark.virtual

LEVELS = ThinkingLevels(levels={"little": "Be quick.", "hard": "Think twice."})


@pytest.mark.parametrize(
    ("prompt", "level"),
    [("hi", "little"), ("think hard!", "hard"), ("I Think  so, think hard", "hard")],
)
async def test_the_prompt_chooses_the_level_and_the_card_tells_it(prompt: str, level: str):
    engine, sink = ScriptedEngine(ThinkingDelta("Let me see.")), RecordingSink()
    turn = Turn(
        blocks=(System(id="system", text="Be kind."), User(text=prompt)),
        metadata=TurnMetadata(inference_id="i"),
    )
    with publishing_to(sink):
        answered = await thinking_mode(LEVELS)(engine.infer)(turn)
    [told] = engine.turns
    assert [block.text for block in told.blocks if isinstance(block, System)] == [
        LEVELS.levels[level],
        "Be kind.",
    ]
    assert answered.blocks[:-1] == turn.blocks
    assert isinstance(answered.blocks[-1], Reasoning)
    assert [event for event in sink.events if isinstance(event, AppEvent)] == [
        AppEvent(kind=KIND, id="thinking-mode:i", props={"level": level}),
        AppEvent(kind=KIND, id="thinking-mode:i", props={"words": 3}),
    ]


def test_the_fold_adds_the_model_calls_of_an_answer_up():
    props = added_up(added_up({"level": "hard"}, {"words": 3}), {"level": "hard"})
    assert added_up(props, {"words": 4}) == {"level": "hard", "words": 7, "calls": 2}
