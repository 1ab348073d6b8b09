"""The queue and the keys against a model of a few lines, whatever is asked in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import async_solipsism
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sessions_app.inference.errors import (
    ConversationNotFound,
    KeyReused,
    NoActiveInference,
    NotQueued,
    QueueFull,
    RunInProgress,
)
from sessions_app.inference.turns import LlmText, Turn
from sessions_app.profiles import Profile
from sessions_app.testing import Gate, ScriptedEngine
from sessions_app.values import Queued, Started, Submitted
from tests.moments.bench import CONV, Bench, ends, of

T = TypeVar("T")
LIMIT = 3
PROFILES = [Profile(slug="chat"), Profile(slug="other")]


class Obedient(ScriptedEngine):
    """Answers when it is told to."""

    gate: Gate

    async def infer(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        self.gate = Gate(f"call {len(self.turns)}")
        await self.gate.passed()
        return turn.with_blocks(LlmText(text="done"))


@dataclass(frozen=True)
class Post:
    """A prompt as it was asked; its key is its name."""

    name: str
    profile: str | None = None


class QueueMachine(RuleBasedStateMachine):
    """What is `active`, what is `waiting`, what was `taken` and how that `ended`."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner(loop_factory=async_solipsism.EventLoop)
        self.engine = Obedient()
        self.bench = self.run(self._bench())
        self.profile = "chat"
        self.built: str | None = None
        self.active: Post | None = None
        self.waiting: list[Post] = []
        self.taken: list[str] = []
        self.ended: list[str] = []
        self.answered: dict[Post, Submitted] = {}
        self.number = 0

    async def _bench(self) -> Bench:
        return Bench(self.engine, profiles=PROFILES, queue=LIMIT)

    def run(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(verb)

    def teardown(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.loop.close()

    async def _end(self) -> None:
        await self.bench.aclose()
        frames = await self.bench.lawful()
        assert len(ends(frames)) == len(self.taken)

    # What the model does

    def take(self, post: Post) -> None:
        """It is taken up; where its profile is broken it fails, and the next one is taken."""
        self.taken.append(post.name)
        self.active = post
        if self.is_broken(post):
            self.end("failed")
        else:
            self.profile = self.built = post.profile or self.profile

    def is_broken(self, post: Post) -> bool:
        """A runner that is there already is not built again."""
        wanted = post.profile or self.profile
        return wanted != self.built and wanted in self.bench.builder.broken

    def end(self, how: str) -> None:
        self.ended.append(how)
        self.active = None
        if self.waiting:
            self.take(self.waiting.pop(0))

    def new(self, profile: str | None = None) -> Post:
        self.number += 1
        return Post(f"p{self.number}", profile)

    async def ask(self, post: Post, **fields: Any) -> tuple[Submitted, bool]:
        return await self.bench.answer(post.name, profile=post.profile, **fields)

    async def settle(self) -> None:
        await asyncio.sleep(1)

    # What is asked

    @rule(
        policy=st.sampled_from(["queue", "queue", "reject", "interrupt"]),
        profile=st.sampled_from([None, None, "chat", "other"]),
        times=st.sampled_from([1, 1, 1, 30, 50]),
    )
    def post(self, policy: str, profile: str | None, times: int) -> None:
        """One prompt, perhaps posted many times at once."""
        post = self.new(profile)
        got = self.run(self._post(post, policy, times))
        busy = self.active is not None
        if not busy and self.is_broken(post):
            assert all(isinstance(each, RuntimeError) for each in got)
            return
        if busy and policy == "reject":
            assert all(isinstance(each, RunInProgress) for each in got)
            return
        if busy and len(self.waiting) == LIMIT:
            assert all(isinstance(each, QueueFull) for each in got)
            return
        answers = {answer for answer, _ in got}
        assert len(answers) == 1
        assert [replayed for _, replayed in got].count(False) == 1
        [answer] = answers
        self.answered[post] = answer
        if not busy:
            assert isinstance(answer, Started)
            self.take(post)
        elif policy == "queue":
            self.waiting.append(post)
            assert isinstance(answer, Queued)
            assert (answer.position, answer.depth) == (len(self.waiting),) * 2
        else:
            assert isinstance(answer, Queued)
            assert (answer.position, answer.depth) == (1, len(self.waiting) + 1)
            self.waiting.insert(0, post)
            self.end("cancelled")

    async def _post(self, post: Post, policy: str, times: int) -> list[Any]:
        asked = (self.ask(post, policy=policy) for _ in range(times))
        got = await asyncio.gather(*asked, return_exceptions=True)
        await self.settle()
        return got

    @rule(
        policies=st.lists(
            st.sampled_from(["queue", "interrupt", "reject", "cancel", "empty"]),
            min_size=2,
            max_size=6,
        )
    )
    def at_once(self, policies: list[str]) -> None:
        """Several requests, before anything has come of the first."""
        posts = [self.new() for _ in policies]
        told = self.run(self._at_once(posts, policies))
        stopped = False
        for post, policy, answer in zip(posts, policies, told, strict=True):
            busy = self.active is not None
            if policy in ("cancel", "empty"):
                if busy:
                    stopped = True
                    if policy == "empty":
                        self.waiting.clear()
                else:
                    assert isinstance(answer, NoActiveInference | ConversationNotFound)
                continue
            if not busy and self.is_broken(post):
                assert isinstance(answer, RuntimeError)
            elif busy and policy == "reject":
                assert isinstance(answer, RunInProgress)
            elif busy and len(self.waiting) == LIMIT:
                assert isinstance(answer, QueueFull)
            else:
                self.answered[post] = answer[0]
                if not busy:
                    self.take(post)
                elif policy == "queue":
                    self.waiting.append(post)
                else:
                    self.waiting.insert(0, post)
                    stopped = True
        if stopped:
            self.end("cancelled")

    async def _at_once(self, posts: list[Post], policies: list[str]) -> list[Any]:
        asked = [
            self.bench.cancel(queue=policy == "empty")
            if policy in ("cancel", "empty")
            else self.ask(post, policy=policy)
            for post, policy in zip(posts, policies, strict=True)
        ]
        got = await asyncio.gather(*asked, return_exceptions=True)
        await self.settle()
        return got

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A key that was used: the same answer, and another request is refused."""
        post = data.draw(st.sampled_from(list(self.answered)))
        assert self.run(self.ask(post)) == (self.answered[post], True)
        with pytest.raises(KeyReused):
            self.run(self.bench.answer("something else", post.name))

    @precondition(lambda self: self.active)
    @rule()
    def finish(self) -> None:
        async def finish() -> None:
            self.engine.gate.open()
            await self.settle()

        self.run(finish())
        self.end("completed")

    @precondition(lambda self: self.active)
    @rule(queue=st.booleans())
    def cancel(self, queue: bool) -> None:
        async def cancel() -> None:
            await self.bench.cancel(queue=queue)
            await self.settle()

        self.run(cancel())
        if queue:
            self.waiting.clear()
        self.end("cancelled")

    @precondition(lambda self: not self.active)
    @rule()
    def cancel_nothing(self) -> None:
        if self.taken:
            with pytest.raises(NoActiveInference):
                self.run(self.bench.cancel(queue=True))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        post = data.draw(st.sampled_from(self.waiting))
        self.run(self.bench.manager.remove_queued(CONV, post.name))
        self.waiting.remove(post)
        with pytest.raises(NotQueued):
            self.run(self.bench.manager.remove_queued(CONV, post.name))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def run_now(self, data: st.DataObject) -> None:
        async def run_now(name: str) -> None:
            await self.bench.manager.run_queued_now(CONV, name)
            await self.settle()

        post = data.draw(st.sampled_from(self.waiting))
        self.run(run_now(post.name))
        self.waiting.remove(post)
        self.waiting.insert(0, post)
        self.end("cancelled")

    @rule(broken=st.sampled_from([frozenset(), frozenset({"other"})]))
    def change_profiles(self, broken: frozenset[str]) -> None:
        """A profile breaks, or is mended."""
        self.bench.builder.broken = broken

    @precondition(lambda self: not self.active)
    @rule()
    def put_away(self) -> None:
        async def wait() -> None:
            await asyncio.sleep(300)
            await self.bench.manager.evict_idle()

        self.run(wait())
        self.built = None

    # What must be true

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        info = await self.bench.manager.find(CONV)
        if info is None:
            assert not self.taken
            return
        assert info.running == (self.active is not None)
        snapshot = await self.bench.streams.snapshot(CONV)
        waiting = [item["idempotencyKey"] for item in snapshot.queue]
        assert waiting == [post.name for post in self.waiting]
        assert info.queue_depth == len(self.waiting)
        frames = await self.bench.frames()
        assert [frame["data"]["content"] for frame in of(frames, "chat.message")] == self.taken
        assert ends(frames) == self.ended


def test_whatever_is_asked_the_queue_is_as_the_model_says():
    run_state_machine_as_test(
        QueueMachine, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
