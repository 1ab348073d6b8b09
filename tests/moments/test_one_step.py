"""What the manager decides is one step, whatever happens at whichever await of a request.

The app keeps conversations far away, so that every request waits somewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sessions_app.inference.errors import ConversationNotFound, Refused
from sessions_app.inference.turns import LlmText, Turn, TurnMetadata, User
from sessions_app.store import StoredConversation
from sessions_app.values import Submitted
from tests.awaits import Act, Hold, Moment, Throw, awaits_of, meet
from tests.moments.bench import ANNA, BERT, CONV, Bench, ends, model, of


class FarStore:
    """Where the app keeps one conversation: it takes a while to get there and back."""

    def __init__(self, kept: StoredConversation | None = None) -> None:
        self._kept = kept

    async def load(self, conv_id: str) -> StoredConversation | None:
        await asyncio.sleep(0.01)
        kept = self._kept
        await asyncio.sleep(0.01)
        return kept if kept is not None and conv_id == kept.conv_id else None

    async def transfer(self, old_owner: str, new_owner: str) -> None: ...


KEPT = StoredConversation(
    conv_id=CONV,
    owner=ANNA,
    profile="chat",
    title="one",
    created_ms=1,
    last_activity_ms=1,
    turns=(
        Turn(
            blocks=(User(text="one"), LlmText(text="done")),
            metadata=TurnMetadata(session_id=CONV, inference_id="i1", outcome="completed"),
        ),
    ),
)


class Story:
    """Something is asked of a conversation; `meanwhile` what an act has begun beside it."""

    bench: Bench

    def __init__(self, kept: StoredConversation | None = None) -> None:
        self.kept = kept
        self.meanwhile: list[asyncio.Task[Any]] = []
        self.over = False

    async def __call__(self) -> None:
        self.bench = Bench(model(), turn_store=FarStore(self.kept))
        await self.tell()
        self.over = True
        await asyncio.gather(*self.meanwhile, return_exceptions=True)
        await self.bench.idle()
        await self.look()
        await self.bench.aclose()

    async def tell(self) -> None: ...

    async def look(self) -> None: ...

    def begin(self, verb: Coroutine[Any, Any, Any]) -> None:
        self.meanwhile.append(asyncio.create_task(verb, name="story: meanwhile"))

    async def ask(self, prompt: str, **fields: Any) -> Submitted | BaseException:
        """The answer of a task of its own, which the hook meets."""
        asking = asyncio.create_task(self.bench.ask(prompt, **fields), name=f"submit:{prompt}")
        await asyncio.wait({asking})
        if asking.cancelled():
            return asyncio.CancelledError()
        return asking.exception() or asking.result()

    async def prompts(self) -> list[str]:
        """The prompts in the log, which must be those that the model remembers."""
        frames = await self.bench.lawful()
        told = [frame["data"]["content"] for frame in of(frames, "chat.message")]
        turns = self.bench.session.turns
        assert [b.text for b in turns[-1].blocks if isinstance(b, User)] == told
        assert len(ends(frames)) == len(told)
        return told


def everywhere(make: Callable[[], Story], act: Callable[[Story, Moment], Any]) -> None:
    for number in range(1, len(awaits_of(make())) + 1):
        story = make()
        met: list[Moment] = []

        def here(moment: Moment, story: Story = story, met: list[Moment] = met) -> Any:
            met.append(moment)
            return None if story.over else act(story, moment)

        try:
            meet(story, number, here)
        except Exception as error:
            raise AssertionError(f"broken at {met}") from error


# One key


class ManyAtOnce(Story):
    """Eight equal posts at once, of a conversation that is not in memory."""

    async def tell(self) -> None:
        self.answers = await asyncio.gather(*(self.ask("two", key="k") for _ in range(8)))

    async def look(self) -> None:
        answers = {answer for answer in self.answers if not isinstance(answer, BaseException)}
        assert len(answers) == 1
        assert await self.prompts() == ["one", "two"]


def test_equal_posts_start_one_inference_whoever_is_late():
    everywhere(lambda: ManyAtOnce(KEPT), lambda story, moment: Hold())


def test_equal_posts_start_one_inference_whoever_goes_away():
    def go_away(story: Story, moment: Moment) -> None:
        if moment.task.get_name().startswith("submit:"):
            moment.task.cancel()

    everywhere(lambda: ManyAtOnce(KEPT), go_away)


# Order


class TwoAfterTheOther(Story):
    """A prompt runs, a second one waits; an act asks for more."""

    before: tuple[str, ...] = ()

    async def tell(self) -> None:
        self.early: list[str] = []
        for prompt in ("one", "two", "three"):
            assert not isinstance(await self.ask(prompt), BaseException)
            self.early.append(prompt)

    async def come_late(self) -> None:
        before = tuple(self.early)
        await self.bench.ask("late")
        self.before = before

    async def look(self) -> None:
        told = await self.prompts()
        assert [prompt for prompt in told if prompt != "late"] == ["one", "two", "three"]
        assert tuple(told[: len(self.before)]) == self.before, "it jumped the queue"


def test_nobody_jumps_the_queue_between_an_end_and_the_next_begin():
    def come(story: Story, moment: Moment) -> None:
        assert isinstance(story, TwoAfterTheOther)
        story.begin(story.come_late())

    everywhere(TwoAfterTheOther, come)


# Put away


class Put(Story):
    """A conversation that nobody has used for long is asked again, or put away."""

    async def tell(self) -> None:
        await self.bench.ask("one")
        await self.bench.idle()
        await asyncio.sleep(305)
        await asyncio.create_task(self.meet())

    async def meet(self) -> None: ...

    async def look(self) -> None:
        await self.bench.ask("last")
        await self.bench.idle()
        assert await self.prompts() == ["one", *self.asked, "last"]
        with pytest.raises(ConversationNotFound):
            await self.bench.ask("mine now", owner=BERT)

    asked: tuple[str, ...] = ()


class AskedAgain(Put):
    asked = ("two",)

    async def meet(self) -> None:
        await self.bench.ask("two")


class PutAway(Put):
    async def meet(self) -> None:
        await self.bench.manager.evict_idle()


class PutAwayTwice(Put):
    """Put away, and then asked again and put away again."""

    asked = ("two",)

    async def meet(self) -> None:
        await self.bench.manager.evict_idle()
        await self.bench.ask("two")
        await self.bench.idle()
        await asyncio.sleep(305)
        await self.bench.manager.evict_idle()


def test_a_prompt_for_a_conversation_that_is_being_put_away():
    def ask(story: Story, moment: Moment) -> None:
        assert isinstance(story, PutAway)
        story.asked = ("two",)
        story.begin(story.bench.ask("two"))

    everywhere(PutAway, ask)


def test_a_conversation_is_put_away_while_it_is_asked():
    everywhere(AskedAgain, lambda story, moment: story.begin(story.bench.manager.evict_idle()))


def test_a_stranger_asks_while_a_conversation_comes_and_goes():
    async def intrude(story: Story) -> None:
        with pytest.raises(Refused):
            await story.bench.ask("mine now", owner=BERT)

    everywhere(PutAwayTwice, lambda story, moment: story.begin(intrude(story)))


# Recalled


class Recalled(Story):
    """The app has a conversation; two ask for it at once, and one of them once more."""

    async def tell(self) -> None:
        await asyncio.gather(self.ask("two"), self.ask("three"))
        for prompt in ("two", "three"):
            # As a client does that heard nothing: the same key again.
            await self.bench.ask(prompt)

    async def look(self) -> None:
        told = await self.prompts()
        assert told[0] == "one"
        assert sorted(told[1:]) == ["three", "two"]
        info = await self.bench.manager.find(CONV)
        assert info is not None
        assert info.owner == ANNA


FAILING: dict[str, Act] = {
    "it is late": lambda moment: Hold(),
    "the app raises": lambda moment: Throw(OSError("the shelf is gone")),
    "it is cancelled": lambda moment: Throw(asyncio.CancelledError()),
}


@pytest.mark.parametrize("act", FAILING.values(), ids=FAILING)
def test_a_conversation_that_the_app_keeps_comes_back_once_and_whole(act: Act):
    def while_it_comes_back(story: Story, moment: Moment) -> Any:
        if moment.task.get_name().startswith(("submit:", "recall:")):
            return act(moment)
        return None

    everywhere(lambda: Recalled(KEPT), while_it_comes_back)


def test_a_stranger_asks_while_a_conversation_is_recalled():
    async def intrude(story: Story) -> None:
        with pytest.raises(Refused):
            await story.bench.ask("mine now", owner=BERT)

    everywhere(lambda: Recalled(KEPT), lambda story, moment: story.begin(intrude(story)))
