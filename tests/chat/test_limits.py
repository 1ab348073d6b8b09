"""Proves chat/limits.py, and that sockets and prompts meet it: PROTOCOL §8."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from django.conf import settings as django_settings
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from chat.errors import RateLimited, TooManySockets
from chat.hub import Hub
from chat.limits import Bounds, Bucket, Limits
from chat.testing import ChatClient
from webchat_project.testing import running_hub

pytestmark = pytest.mark.django_db

TRY_LATER, RATE, TOO_MANY = 1013, 4013, 4529


@given(
    st.lists(st.floats(0, 30), max_size=60),
    st.floats(0.5, 5),
    st.integers(1, 40),
)
def test_a_bucket_gives_its_burst_and_then_its_rate(pauses: list[float], rate: float, burst: int):
    clock = 0.0
    bucket = Bucket(rate, burst, now=lambda: clock)
    taken: list[float] = []
    for pause in [*([0.0] * (burst + 1)), *pauses]:
        clock += pause
        if bucket.take():
            taken.append(clock)

    assert taken[:burst] == [0.0] * burst
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = burst + (taken[last] - taken[first]) * rate
            assert last - first + 1 <= most + 1e-6


@given(st.integers(1, 10), st.integers(1, 20))
def test_who_keeps_to_the_rate_is_never_refused(rate: int, burst: int):
    clock = 0.0
    bucket = Bucket(rate, burst, now=lambda: clock)
    for _ in range(100):
        assert bucket.take()
        clock += 1.001 / rate


def test_prompts_are_bounded_for_each_person_and_each_address():
    limits = Limits(Bounds(prompts_user=2, prompts_address=3))
    limits.take_prompt("user:1", "here")
    limits.take_prompt("user:1", "there")
    with pytest.raises(RateLimited, match="2 new prompts a minute are taken from one person") as no:
        limits.take_prompt("user:1", "here")
    assert 1 <= no.value.retry_after <= 60
    limits.take_prompt("user:2", "here")
    limits.take_prompt("user:3", "here")
    with pytest.raises(RateLimited, match="one address"):
        limits.take_prompt("user:4", "here")
    limits.take_prompt("user:4", "there")

    assert limits.refusals == {"prompts_user": 1, "prompts_address": 1}


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from("xy"))))
def test_sockets_are_counted_while_they_are_open(steps: list[tuple[bool, str, str]]):
    limits = Limits(Bounds(sockets_user=2, sockets_address=3, sockets_process=4))
    open_sockets: list[tuple[str, str]] = []
    for enters, owner, address in steps:
        place = (owner, address)
        if enters:
            fits = (
                len(open_sockets) < 4
                and sum(o == owner for o, _ in open_sockets) < 2
                and sum(a == address for _, a in open_sockets) < 3
            )
            try:
                limits.enter(*place)
            except TooManySockets:
                assert not fits
            else:
                assert fits
                open_sockets.append(place)
        elif place in open_sockets:
            limits.leave(*place)
            open_sockets.remove(place)


@asynccontextmanager
async def bounded(**bounds: int) -> AsyncIterator[Hub]:
    """A hub with these settings."""
    with override_settings(WEBCHAT={**django_settings.WEBCHAT, **bounds}):
        async with running_hub() as hub:
            yield hub


def refusals(hub: Hub, limit: str) -> float:
    """What /metrics says of a limit."""
    sample = f'webchat_limit_refusals_total{{limit="{limit}"}} '
    [line] = [x for x in generate_latest(hub.metrics).decode().splitlines() if sample in x]
    return float(line.removeprefix(sample))


async def test_a_prompt_too_many_is_refused_and_leaves_nothing():
    async with bounded(PROMPTS_PER_USER=2) as hub:
        anna = ChatClient("old", visitor="anna")
        for key in ("first", "second"):
            reply = await anna.post("/chat", prompt("old", key))
            assert reply.status in (200, 202)
        late = await anna.post("/chat", prompt("new", "third"))
        again = await anna.post("/chat", prompt("old", "first"))
        bert = await ChatClient("his", visitor="bert").post("/chat", prompt("his", "first"))

        assert (late.status, late.body["code"]) == (429, "rate_limited")
        assert await hub.sessions.find("new") is None
        assert again.status == 200, "a replay does not count"
        assert bert.status == 200
        assert refusals(hub, "prompts_user") == 1


def prompt(conv_id: str, key: str) -> dict[str, object]:
    return {"prompt": "hello", "conv_id": conv_id, "idempotency_key": key}


async def test_of_many_equal_prompts_at_once_one_counts():
    async with bounded(PROMPTS_PER_USER=1):
        anna = ChatClient("conv", visitor="anna")
        replies = await asyncio.gather(
            *(anna.post("/chat", prompt("conv", "key")) for _ in range(30))
        )

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body["inference_id"] for reply in replies}) == 1


@pytest.mark.parametrize(
    ("bound", "limit", "code"),
    [
        ("SOCKETS_PER_USER", "sockets_user", TOO_MANY),
        ("SOCKETS_PER_ADDRESS", "sockets_address", TOO_MANY),
        ("SOCKETS_PER_PROCESS", "sockets_process", TRY_LATER),
    ],
)
async def test_a_socket_too_many_is_told_so_and_a_place_comes_back(
    bound: str, limit: str, code: int
):
    async with bounded(**{bound: 2}) as hub:
        anna = ChatClient("conv", visitor="anna")
        async with AsyncExitStack() as stack:
            for _ in range(2):
                tab = await stack.enter_async_context(anna.socket())
                await tab.until("timeline.snapshot")
            async with ChatClient("new", visitor="anna").socket() as late:
                told = await late.frame()
                assert await late.closed() == code
        assert (told["type"], told["data"]["code"]) == ("ws.error", "too_many_sockets")
        assert "2 sockets are open" in told["data"]["message"]
        assert await hub.sessions.find("new") is None
        assert refusals(hub, limit) == 1

        async with anna.socket() as tab:
            await tab.until("timeline.snapshot")


@pytest.mark.parametrize("message", ["ping", {"type": "whatever"}, "no json"], ids=str)
async def test_a_socket_that_says_too_much_is_closed(message: object):
    async with bounded(MESSAGES_BURST=3) as hub:
        async with ChatClient("conv").socket() as tab:
            await tab.until("timeline.snapshot")
            for _ in range(3):
                await tab.send(message)
            await tab.send(message)
            assert await tab.closed() == RATE
        assert refusals(hub, "messages") == 1


async def test_pongs_have_a_bound_of_their_own():
    async with bounded(MESSAGES_PER_SOCKET=1, MESSAGES_BURST=2) as hub:
        async with ChatClient("conv").socket() as tab:
            await tab.until("timeline.snapshot")
            for _ in range(100):
                await tab.send({"type": "ws.pong", "seq": 0})
            await tab.send({"type": "ws.ping", "nonce": 1})
            assert (await tab.until("ws.pong"))[-1]["data"]["nonce"] == 1
            for _ in range(1000):
                await tab.send({"type": "ws.pong", "seq": 0})
            assert await tab.closed() == RATE
        assert refusals(hub, "messages") == 1


async def test_a_full_queue_is_counted():
    async with bounded(QUEUE_LIMIT=1) as hub:
        anna = ChatClient("conv", visitor="anna")
        replies = [
            await anna.post("/chat", {"prompt": "hang", "conv_id": "conv"}) for _ in range(3)
        ]
        assert [reply.status for reply in replies] == [200, 202, 429]
        assert refusals(hub, "queue") == 1
