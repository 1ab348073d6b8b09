"""Two processes of one service against a model of a few lines, whatever is asked of either.

Each may die or leave at any time, and another takes its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from chat.frames import Cursor
from chat.log import Gap
from sessions_app.inference.errors import (
    AlreadyDecided,
    ConversationNotFound,
    KeyReused,
    NoActiveInference,
    NotQueued,
    QueueFull,
    RunInProgress,
)
from sessions_app.inference.events import TextDelta, publish
from sessions_app.inference.tools import tool
from sessions_app.inference.turns import LlmText, ToolCall, Turn, User
from sessions_app.record import unpack_turns
from sessions_app.testing import Gate
from sessions_app.values import PromptRequest, Queued, Started, Submitted
from tests.cluster.processes import PATIENCE, Process
from tests.moments.bench import ends, of
from tests.rules import Frame, broken_rules, refusals

LIMIT = 3
WHICH = st.integers(0, 99)
"""Which of those that are there. That is not the same each time, for who owns a conversation is a
race; what Hypothesis draws has to be."""


@tool(requires_approval=True)
async def double(number: int) -> int:
    """Doubles a number."""
    return number * 2


class Obedient:
    """Says a word and goes on when it is told to. To "agree…" it first wants a tool of a person."""

    model = "obedient"

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.gate = Gate("first")

    async def infer(self, turn: Turn) -> Turn:
        self.turns.append(turn)
        match turn.blocks[-1]:
            case User(text=text) if text.startswith("agree"):
                call = ToolCall(call_id=str(uuid4()), name="double", arguments={"number": 2})
                return turn.with_blocks(call)
        self.gate = Gate(f"call {len(self.turns)}")
        publish(TextDelta("So"))
        await self.gate.passed()
        publish(TextDelta(" be it."))
        return turn.with_blocks(LlmText(text="So be it."))


class ProcessesMachine(RuleBasedStateMachine):
    """What is `active`, what is `waiting`, what was `taken` and how that `ended`."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.numbers = count(1)
        self.processes = [self.new_process(), self.new_process()]
        self.conv = str(uuid4())
        self.owner = f"visitor:{uuid4()}"
        self.active: str | None = None
        self.paused: str | None = None
        """What a person is asked: whether a tool may run, or the next step of step mode."""
        self.waiting: list[str] = []
        self.taken: list[str] = []
        self.ended: list[str] = []
        self.answered: dict[str, Submitted] = {}
        self.step_mode = False

    def new_process(self) -> Process:
        name = f"{next(self.numbers)}-{uuid4()}"
        return Process(self.url, name, Obedient(), tools=[double], queue=LIMIT)

    def teardown(self) -> None:
        one, other = self.processes
        try:
            owned = one.owns(self.conv)
            one.leave()
            if owned and self.active is not None:
                self.end("cancelled")
            self.it_is_as_the_model_says()
        finally:
            other.leave()

    # What the model does

    def take(self, prompt: str) -> None:
        self.taken.append(prompt)
        self.active = prompt
        self.paused = "approval" if prompt.startswith("agree") else None

    def end(self, how: str) -> None:
        self.ended.append(how)
        self.active = self.paused = None
        if self.waiting:
            self.take(self.waiting.pop(0))

    # What is asked, of one process or of the other

    def at(self, place: int) -> Process:
        return self.processes[place]

    def ask(self, place: int, prompt: str, **fields: Any) -> tuple[Submitted, bool]:
        return self.at(place).run(self.submit(place, prompt, **fields))

    async def submit(
        self, place: int, prompt: str, *, key: str | None = None, policy: Any = "queue"
    ) -> tuple[Submitted, bool]:
        request = PromptRequest(
            owner=self.owner,
            prompt=prompt,
            conv_id=self.conv,
            idempotency_key=key or prompt,
            policy=policy,
        )
        return await self.at(place).sessions.submit(request)

    @rule(
        places=st.lists(st.integers(0, 1), min_size=1, max_size=4),
        policy=st.sampled_from(["queue", "queue", "reject", "interrupt"]),
        agree=st.booleans(),
    )
    def post(self, places: list[int], policy: str, agree: bool) -> None:
        """One prompt, perhaps posted many times at once."""
        prompt = f"{'agree' if agree else 'say'} {next(self.numbers)}"
        asked = [
            self.at(place).start(self.submit(place, prompt, policy=policy)) for place in places
        ]
        got = [result_of(each) for each in asked]
        busy = self.active is not None
        if busy and policy == "reject":
            assert all(isinstance(each, RunInProgress) for each in got), got
            return
        if busy and len(self.waiting) == LIMIT:
            assert all(isinstance(each, QueueFull) for each in got), got
            return
        answers = {answer for answer, _ in got}
        assert len(answers) == 1, got
        assert [replayed for _, replayed in got].count(False) == 1, got
        [answer] = answers
        self.answered[prompt] = answer
        if not busy:
            assert isinstance(answer, Started)
            self.take(prompt)
            return
        assert isinstance(answer, Queued)
        place = 1 if policy == "interrupt" else len(self.waiting) + 1
        assert (answer.position, answer.depth) == (place, len(self.waiting) + 1)
        self.waiting.insert(place - 1, prompt)
        if policy == "interrupt":
            self.end("cancelled")

    @rule(place=st.integers(0, 1), which=WHICH)
    def again(self, place: int, which: int) -> None:
        """A key that was used: the same answer, and another request is refused."""
        if not self.answered:
            return
        prompt = picked(list(self.answered), which)
        assert self.ask(place, prompt) == (self.answered[prompt], True)
        with pytest.raises(KeyReused):
            self.ask(place, "something else", key=prompt)

    @rule()
    def finish(self) -> None:
        if self.active is None or self.paused:
            return
        [engine] = [each.engine for each in self.processes if each.owns(self.conv)]
        assert isinstance(engine, Obedient)
        [process] = [each for each in self.processes if each.owns(self.conv)]
        process.run(opened(engine))
        self.end("completed")

    @rule(
        places=st.lists(st.integers(0, 1), min_size=1, max_size=2),
        decision=st.sampled_from(["continue", "skip", "abort"]),
    )
    def decide(self, places: list[int], decision: Any) -> None:
        """Several people decide at once: one of them does."""
        if not self.paused:
            return
        frames = self.frames(0)
        pause = of(frames, "debugger.pause")[-1]["id"]
        asked = [
            self.at(place).start(
                self.at(place).sessions.decide(self.conv, pause, decision, by=str(number))
            )
            for number, place in enumerate(places)
        ]
        got = [result_of(each) for each in asked]
        late = [each for each in got if isinstance(each, AlreadyDecided)]
        [resolution] = [each for each in got if not isinstance(each, AlreadyDecided)]
        assert resolution.decision == decision
        assert all(each.resolution == resolution for each in late)
        self.paused = "step" if self.paused == "approval" and self.step_mode else None
        if decision == "abort":
            self.end("cancelled")

    @rule(place=st.integers(0, 1), queue=st.booleans())
    def cancel(self, place: int, queue: bool) -> None:
        cancelling = self.at(place).sessions.cancel(self.conv, queue=queue)
        if self.active is None:
            with pytest.raises(NoActiveInference if self.taken else ConversationNotFound):
                self.at(place).run(cancelling)
            return
        self.at(place).run(cancelling)
        if queue:
            self.waiting.clear()
        self.end("cancelled")

    @rule(place=st.integers(0, 1), which=WHICH)
    def remove(self, place: int, which: int) -> None:
        if not self.waiting:
            return
        prompt = picked(self.waiting, which)
        self.at(place).run(self.at(place).sessions.remove_queued(self.conv, prompt))
        self.waiting.remove(prompt)
        with pytest.raises(NotQueued):
            self.at(1 - place).run(self.at(1 - place).sessions.remove_queued(self.conv, prompt))

    @rule(place=st.integers(0, 1), which=WHICH)
    def run_now(self, place: int, which: int) -> None:
        if not self.waiting:
            return
        prompt = picked(self.waiting, which)
        self.at(place).run(self.at(place).sessions.run_queued_now(self.conv, prompt))
        self.waiting.remove(prompt)
        self.waiting.insert(0, prompt)
        self.end("cancelled")

    @rule(place=st.integers(0, 1), enabled=st.booleans())
    def switch_step_mode(self, place: int, enabled: bool) -> None:
        if not self.taken:
            return
        sessions = self.at(place).sessions
        self.at(place).run(sessions.set_step_mode(self.conv, enabled, by="anna"))
        self.step_mode = enabled
        if not enabled and self.paused == "step":
            self.paused = None

    @rule(place=st.integers(0, 1))
    def give_away(self, place: int) -> None:
        if not self.taken:
            return
        new = f"visitor:{uuid4()}"
        moved = self.at(place).run(self.at(place).sessions.transfer(self.owner, new))
        assert moved == (self.conv,)
        self.owner = new

    # What befalls a process

    @rule(place=st.integers(0, 1))
    def die(self, place: int) -> None:
        owned = self.at(place).owns(self.conv)
        self.at(place).kill()
        self.processes[place] = self.new_process()
        if owned and self.active is not None:
            self.end("lost")

    @rule(place=st.integers(0, 1))
    def leave(self, place: int) -> None:
        owned = self.at(place).owns(self.conv)
        self.at(place).leave()
        self.processes[place] = self.new_process()
        if owned and self.active is not None:
            self.end("cancelled")

    # What must be true

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        """Soon, and at each process."""
        deadline = monotonic() + PATIENCE
        expected = self.expected()
        for place in range(len(self.processes)):
            while (found := self.found(place)) != expected:
                assert monotonic() < deadline, (found, expected)
        self.check_frames()

    def expected(self) -> object:
        if not self.taken:
            return None
        return (
            self.owner,
            self.active is not None,
            self.step_mode,
            self.waiting,
            self.waiting,
            self.taken,
            self.ended,
            (self.paused is not None, "So" if self.active and not self.paused else ""),
        )

    def found(self, place: int) -> object:
        process = self.at(place)
        if process._loop.is_closed():
            return self.expected()
        info = process.run(process.sessions.find(self.conv))
        if info is None:
            return None
        snapshot = process.run(process.streams.snapshot(self.conv))
        frames = self.frames(place)
        detail = process.run(process.store.record(self.conv))
        assert detail is not None
        record = json.loads(detail)["session"]
        now = frames[max((i for i, f in enumerate(frames) if f["type"] == "chat.message")) :]
        resumed = {frame["id"] for frame in of(now, "debugger.resumed")}
        open_pauses = [f for f in of(now, "debugger.pause") if f["id"] not in resumed]
        said = "".join(frame["data"]["delta"] for frame in of(now, "llm.delta"))
        return (
            info.owner,
            info.running,
            info.step_mode,
            [item["idempotencyKey"] for item in snapshot.queue],
            [prompt["key"] for prompt in record.get("queue", ())],
            [frame["data"]["content"] for frame in of(frames, "chat.message")],
            ends(frames),
            (bool(open_pauses), said if self.active else ""),
        )

    def check_frames(self) -> None:
        place = next(p for p in (1, 0) if not self.at(p)._loop.is_closed())
        frames = self.frames(place)
        wrong = broken_rules(frames)
        if self.active is not None:
            wrong = wrong[:-1]  # it has no end yet
        assert not wrong
        stored = self.at(place).run(self.at(place).store.turns(self.conv))
        turns = () if stored is None else unpack_turns(stored)
        assert len(turns) == len(self.ended)
        if turns:
            assert not (found := refusals(turns[-1].with_blocks(User(text="and?")))), found
            assert said_in(turns[-1]) == shown_in(frames, len(self.ended))

    def frames(self, place: int) -> list[Frame]:
        return self.at(place).run(self._frames(place))

    async def _frames(self, place: int) -> list[Frame]:
        log = self.at(place).streams.log(self.conv)
        await log.refresh()
        page = await log.read(Cursor(log.epoch, 0), limit=10**6)
        assert not isinstance(page, Gap), page
        return [json.loads(entry.text)["event"] for entry in page]


def picked(among: Sequence[str], which: int) -> str:
    return among[which % len(among)]


def result_of(asked: Any) -> Any:
    error = asked.exception(PATIENCE)
    return asked.result() if error is None else error


async def opened(engine: Obedient) -> None:
    async with asyncio.timeout(PATIENCE):
        await engine.gate.reached()
    engine.gate.open()


def said_in(turn: Turn) -> list[str]:
    """Without what stands for an answer where there was none."""
    said = [block.text for block in turn.blocks if isinstance(block, User | LlmText)]
    return [text for text in said if not text.startswith("[no answer: ")]


def shown_in(frames: Sequence[Frame], ended: int) -> list[str]:
    """What was said in the inferences that have ended."""
    over = {frame["id"] for frame in of(frames, "inference.finished")[:ended]}
    return [
        frame["data"]["content" if frame["type"] == "chat.message" else "text"]
        for frame in frames
        if frame["type"] in ("chat.message", "llm.final") and frame["inference_id"] in over
        if frame["data"].get("text") != ""
    ]


def run(machine: type[ProcessesMachine], url: str, *, examples: int, steps: int) -> None:
    named: Any = type("OnOneRedis", (machine,), {"url": url})
    run_state_machine_as_test(
        named,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # two runs of one example are never quite the same
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions_app.cluster.ASK_SECONDS", 0.05)
    monkeypatch.setattr("sessions_app.ownership.REAP_SECONDS", 0.05)


def test_whatever_befalls_two_processes_it_is_as_the_model_says(redis_url: str):
    run(ProcessesMachine, redis_url, examples=8, steps=12)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_befalls_two_processes_for_long(redis_url: str):
    run(ProcessesMachine, redis_url, examples=150, steps=30)
