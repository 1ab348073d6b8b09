"""A process that loses a conversation and gets it back: only what was written has been said."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

from redis import Redis

from cluster.store import LEASES, Keys
from sessions_app.inference.turns import LlmText, Turn, User
from sessions_app.testing import Gate
from sessions_app.values import PromptRequest, Submitted
from tests.cluster.processes import PATIENCE, Process
from tests.moments.bench import ends, of
from tests.rules import Frame


class Waiting:
    """Answers at once, but the prompt "wait" only when it is told to."""

    model = "waiting"

    def __init__(self) -> None:
        self.gate = Gate("answer")

    async def infer(self, turn: Turn) -> Turn:
        prompt = turn.blocks[-1]
        assert isinstance(prompt, User)
        if prompt.text == "wait":
            await self.gate.passed()
        return turn.with_blocks(LlmText(text="So."))


async def ask(process: Process, conv: str, prompt: str) -> tuple[Submitted, bool]:
    request = PromptRequest(
        owner="visitor:anna", prompt=prompt, conv_id=conv, idempotency_key=f"{conv} {prompt}"
    )
    return await process.sessions.submit(request)


async def frames_of(process: Process, conv: str, *, ended: int) -> list[Frame]:
    """All of the log, once so many inferences have ended; or as it is after a long time."""
    frames: list[Frame] = []
    try:
        async with asyncio.timeout(PATIENCE / 2):
            while len(ends(frames)) < ended:
                await asyncio.sleep(0.01)
                written = await process.store.window(conv)
                frames = [json.loads(entry.text)["event"] for entry in written]
    except TimeoutError:
        pass
    return frames


def test_a_prompt_is_not_taken_for_asked_before_where_that_was_never_written(redis_url: str):
    process = Process(redis_url, f"alone-{uuid4()}", Waiting())
    conv = str(uuid4())
    try:
        process.run(ask(process, conv, "wait"))
        with Redis.from_url(redis_url) as redis:
            # Another process has had it, and is gone: what is written next is refused.
            redis.hset(Keys(conv).meta, mapping={"owner": "another", "until": 0})
            redis.zadd(LEASES, {conv: 0})
        answer = process.run(ask(process, conv, "next"))
        frames = process.run(frames_of(process, conv, ended=2))
        assert ends(frames) == ["lost", "completed"], answer
        assert [frame["data"]["content"] for frame in of(frames, "chat.message")] == [
            "wait",
            "next",
        ]
    finally:
        process.leave()
