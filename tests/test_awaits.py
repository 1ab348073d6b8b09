"""The hook meets every await, each run the same; the rules it is used with have teeth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessions_app.inference.turns import Block, LlmText, ToolCall, ToolUse, Turn, User
from tests.awaits import Act, Hold, Throw, awaits_of, meet
from tests.rules import Frame, broken_rules, refusals


class Account:
    """A balance that is read, and written back a moment later: what a hook must find."""

    def __init__(self) -> None:
        self.balance = 0

    async def pay_in(self) -> None:
        before = self.balance
        await asyncio.sleep(0)
        self.balance = before + 1


async def two_payments() -> int:
    account = Account()
    first = asyncio.create_task(account.pay_in(), name="first")
    await first
    await asyncio.create_task(account.pay_in(), name="second")
    return account.balance


def test_every_await_is_met_when_a_task_is_made_and_wherever_it_stops():
    told = awaits_of(two_payments)
    assert [line.split(",")[0] for line in told] == [f"await {n}" for n in (1, 2, 3, 4)]
    assert ["first" in line or "second" in line for line in told[1::2]] == [True, True]
    assert all("pay_in" in line for line in told)


def test_a_step_between_two_others_is_found():
    async def at_once() -> int:
        account = Account()
        await asyncio.gather(account.pay_in(), account.pay_in())
        return account.balance

    assert meet(at_once, 0, lambda moment: None) == 1, "a payment is lost"

    async def one_after_the_other() -> int:
        account = Account()
        first = asyncio.create_task(account.pay_in())
        await asyncio.sleep(0.0005)
        await asyncio.gather(first, account.pay_in())
        return account.balance

    balances = [
        meet(one_after_the_other, number, lambda moment: Hold())
        for number in range(len(awaits_of(one_after_the_other)) + 1)
    ]
    assert balances[0] == 2
    assert 1 in balances, "held at its await, a payment is lost"


@pytest.mark.parametrize("when_back", [False, True])
def test_what_is_thrown_comes_out_of_the_await(when_back: bool):
    async def story() -> str:
        async def wait() -> str:
            try:
                await asyncio.sleep(1)
            except OSError as error:
                return f"{error} after {asyncio.get_running_loop().time():g} s"
            return "nothing"

        return await asyncio.create_task(wait())

    told = meet(story, 2, lambda moment: Throw(OSError("cut"), when_back=when_back))
    assert told == ("cut after 1 s" if when_back else "cut after 0 s")


@pytest.mark.parametrize("seconds", [0.001, 5.0])
def test_who_is_held_can_be_cancelled_as_if_it_were_not(seconds: float):
    async def story() -> bool:
        async def inner() -> None:
            await asyncio.sleep(10)

        async def outer() -> None:
            await waits_for

        waits_for = asyncio.create_task(inner(), name="story: inner")
        task = asyncio.create_task(outer(), name="outer")
        await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled() and waits_for.cancelled()

    for number in range(3):
        assert meet(story, number, lambda moment: Hold(seconds))


def test_a_story_that_leaves_something_is_no_good_story():
    async def leaves_a_task() -> None:
        asyncio.create_task(asyncio.sleep(10**9))  # noqa: RUF006 - that is the point

    async def leaves_a_failure() -> None:
        async def fail() -> None:
            raise OSError

        await asyncio.wait({asyncio.create_task(fail())})

    async def hangs() -> None:
        await asyncio.Event().wait()

    for story, said in ((leaves_a_task, "left tasks"), (leaves_a_failure, "nobody heard")):
        with pytest.raises(AssertionError, match=said):
            awaits_of(story)
    with pytest.raises(TimeoutError):
        awaits_of(hangs)


def test_a_thread_reports_in_order_and_cannot_be_stopped():
    async def story() -> list[str]:
        told: list[str] = []
        loop = asyncio.get_running_loop()

        def work() -> str:
            loop.call_soon_threadsafe(told.append, "half")
            return "done"

        told.append(await loop.run_in_executor(None, work))
        late = asyncio.ensure_future(loop.run_in_executor(None, work))
        late.cancel()
        await asyncio.sleep(2)
        return told

    act: Act = lambda moment: None  # noqa: E731
    assert meet(story, 0, act) == ["half", "done", "half"]


# The rules


def frame(seq: int, type: str, id: str, **data: Any) -> Frame:
    inference = {} if type.startswith(("queue", "session")) else {"inference_id": "i"}
    return {"seq": seq, "type": type, "id": id, "data": data, **inference}


STORY: list[tuple[str, str, dict[str, Any]]] = [
    ("chat.message", "u", {"content": "hi"}),
    ("inference.started", "i", {}),
    ("llm.thinking.start", "m:thinking", {"role": "thinking"}),
    ("llm.thinking.delta", "m:thinking", {"delta": "hm", "offset": 0}),
    ("llm.thinking.final", "m:thinking", {"text": "hm"}),
    ("llm.start", "m", {"role": "assistant"}),
    ("llm.delta", "m", {"delta": "a", "offset": 0}),
    ("llm.delta", "m", {"delta": "b", "offset": 1}),
    ("llm.final", "m", {"text": "ab"}),
    ("tool.start", "t", {}),
    ("debugger.pause", "p", {}),
    ("debugger.resumed", "p", {}),
    ("tool.delta", "t", {}),
    ("tool.result", "t", {"status": "success"}),
    ("tool.done", "t", {"status": "success"}),
    ("inference.finished", "i", {"status": "completed"}),
    ("queue.updated", "c", {"depth": 0, "items": []}),
]


def told(story: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return broken_rules([frame(n, *each[:2], **each[2]) for n, each in enumerate(story, 1)])


def test_a_good_story_breaks_no_rule():
    assert told(STORY) == []


@pytest.mark.parametrize("at", range(len(STORY) - 2), ids=lambda at: STORY[at][0])
def test_a_frame_that_is_missing_or_doubled_or_late_is_noticed(at: int):
    kind = STORY[at][0]
    without, doubled = STORY[:at] + STORY[at + 1 :], STORY[:at] + STORY[at : at + 1] + STORY[at:]
    if kind not in ("tool.delta",):
        assert told(without), "missing"
        assert told(doubled), "doubled"
    assert told([*without, STORY[at]]), "after the end"


def test_a_gap_in_the_numbers_is_noticed():
    frames = [frame(n, *each[:2], **each[2]) for n, each in enumerate(STORY, 1)]
    frames[3]["seq"] = 5
    assert broken_rules(frames)


def test_what_the_strictest_provider_refuses_is_noticed():
    call = ToolCall(call_id="a", name="t", arguments={})
    use = ToolUse(call_id="a", text="42")
    good: list[Block] = [User(text="hi"), call, use, LlmText(text="so"), User(text="and?")]
    assert refusals(Turn(blocks=tuple(good))) == []
    assert refusals(Turn(blocks=tuple(good[:3]))) == []
    bad: list[Block]
    for bad in (
        [],
        good[1:],
        good[:2],
        good[:4],
        [*good[:3], *good[4:]],
        [good[0], *good[:1], *good[1:]],
        [good[0], LlmText(text=" "), good[4]],
    ):
        assert refusals(Turn(blocks=tuple(bad))), bad
