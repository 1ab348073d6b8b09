"""The engine that the server under test answers with: it does what the prompt orders."""

from __future__ import annotations

from sessions_app.inference.events import ModelCallFinished, TextDelta, publish
from sessions_app.inference.turns import LlmText, Turn, User

from .orders import Orders


class BenchEngine:
    """An Engine. `model` is what follows the colon of its name, and says nothing."""

    def __init__(self, model: str) -> None:
        self.model = f"bench:{model}"

    async def infer(self, turn: Turn) -> Turn:
        prompt = next(block for block in reversed(turn.blocks) if isinstance(block, User))
        said = []
        async for piece in Orders.decode(prompt.text).pieces():
            said.append(piece)
            publish(TextDelta(piece))
        publish(ModelCallFinished())
        return turn.with_blocks(LlmText(text="".join(said)))
