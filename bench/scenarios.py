"""What is measured. Each scenario asks one server for one round, and says a few numbers."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import uuid4

import psutil

from .client import Wire
from .orders import Orders
from .servers import CHAINLIT, OURS, PLAIN, STOCK, Cost, Machinery, Ours, Server

LEAD = 0.5
"""Seconds between an order and its first frame: the prompt's own cost is not the frames'."""

REST = 3.0
"""Seconds for which idle sockets are looked at."""

APART = 0.02
"""Seconds between two latencies: the end of the one is no part of the other."""

PATIENCE = 180.0
"""Seconds a scenario may take with one server before it is given up."""

ALL = (PLAIN, *OURS, *STOCK, CHAINLIT)
SLOW = (*STOCK, CHAINLIT)
"""They take ten times as long for a frame, and are asked for a tenth."""

Numbers: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`measure` is asked once a round for each of `servers`; `fresh`: of a new process each time.

    `by_model`: that process answers by a model's service, over HTTP.

    It is asked at most `most_rounds` times.

    `relative` are the numbers that are also told as a multiple of the plain server's. `missing` are
    servers that would take part if they were here.
    """

    name: str
    title: str
    servers: Sequence[str]
    measure: Callable[[Server, float], Awaitable[Numbers]]
    fresh: bool = False
    by_model: bool = False
    most_rounds: int = 20
    relative: tuple[str, ...] = ("µs/frame",)
    missing: tuple[str, ...] = ()


class Meter:
    """What the server and this process used between two moments."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._me = psutil.Process(os.getpid())
        self.start()

    def start(self) -> None:
        self._before, self._mine = self._server.cost, Cost.of(self._me)
        self._began = time.monotonic()

    def numbers(self, frames: int, last: float | None = None) -> dict[str, float]:
        cost, mine = self._server.cost, Cost.of(self._me)
        cpu = cost.cpu - self._before.cpu
        own = mine.cpu - self._mine.cpu
        seconds = (last or time.monotonic()) - self._began
        return {
            "µs/frame": cpu / frames * 1e6,
            "frames/s": frames / seconds,
            "generator %": 100 * own / (own + cpu),
        }


def fan_out(
    sockets: int, frames: int, *, per_second: float = 0
) -> Callable[[Server, float], Awaitable[Numbers]]:
    """One conversation with so many sockets, and about so many frames to all of them together.

    As fast as possible, or each of them so often `per_second`.
    """

    async def measure(server: Server, scale: float) -> Numbers:
        share = 0.1 if server.name in SLOW else 1.0
        each = max(20, round(frames * scale * share / sockets))
        conv = str(uuid4())
        wires = await opened(server, [conv] * sockets)
        try:
            ends = [wire.end() for wire in wires]
            begins = time.monotonic() + LEAD
            orders = Orders(frames=each, per_second=per_second, at=begins)
            await server.order(conv, orders, wires[0])
            await asyncio.sleep(begins - time.monotonic() - 0.05)
            before = [wire.frames for wire in wires]
            meter = Meter(server)
            last = max(await asyncio.gather(*ends))
            got = sum(wire.frames for wire in wires) - sum(before)
            return meter.numbers(got, last)
        finally:
            close_all(wires)

    return measure


def many_streams(
    conversations: int, per_second: float, seconds: float
) -> Callable[[Server, float], Awaitable[Numbers]]:
    """So many conversations at once, each with a socket and a model of ordinary speed."""

    async def measure(server: Server, scale: float) -> Numbers:
        frames = max(10, round(per_second * seconds * min(1.0, scale * 2)))
        count = max(10, round(conversations * min(1.0, scale)))
        convs = [str(uuid4()) for _ in range(count)]
        wires = await opened(server, convs)
        try:
            ends = [wire.end() for wire in wires]
            begins = time.monotonic() + 2.0 + count * 0.03
            for number, (conv, wire) in enumerate(zip(convs, wires, strict=True)):
                at = begins + number / count / per_second
                orders = Orders(frames=frames, per_second=per_second, at=at, stamped=True)
                await server.order(conv, orders, wire)
            late = time.monotonic() - begins
            assert late < 0, f"the prompts took {late:.1f} s longer than they should"
            await asyncio.sleep(begins - time.monotonic() - 0.05)
            for wire in wires:
                wire.latencies = []
            before = sum(wire.frames for wire in wires)
            meter = Meter(server)
            due = frames / per_second
            await asyncio.wait(ends, timeout=due + 10)
            got = sum(wire.frames for wire in wires) - before
            waits = sorted(wait for wire in wires for wait in wire.latencies or ())
            # Against the time the models needed: 100 where nothing piled up.
            held = 100 * len([wait for wait in waits if wait < 1]) / (count * frames)
            numbers = meter.numbers(got)
            return {
                "µs/frame": numbers["µs/frame"],
                "held %": held,
                "p50 ms": 1000 * quantile(waits, 0.5),
                "p99 ms": 1000 * quantile(waits, 0.99),
                "generator %": numbers["generator %"],
            }
        finally:
            close_all(wires)

    return measure


def of_a_service(
    conversations: int, per_second: float, seconds: float
) -> Callable[[Server, float], Awaitable[Numbers]]:
    """So many streams at once from a model's service, through its library, on one core."""

    async def measure(server: Server, scale: float) -> Numbers:
        server.keep_to_one_core()
        frames = round(per_second * max(4, seconds * scale))
        convs = [str(uuid4()) for _ in range(conversations)]
        wires = await opened(server, convs)
        try:
            ends = [wire.end() for wire in wires]
            begins = time.monotonic() + 2.0 + conversations * 0.05
            for number, (conv, wire) in enumerate(zip(convs, wires, strict=True)):
                wire.latencies = []
                at = begins + number / conversations / per_second
                orders = Orders(frames=frames, per_second=per_second, at=at, stamped=True)
                await server.order(conv, orders, wire)
            await asyncio.sleep(begins - time.monotonic() - 0.05)
            before, began = server.cost.cpu, time.monotonic()
            await asyncio.wait(ends, timeout=frames / per_second + 20)
            spent = server.cost.cpu - before
            waits = sorted(wait for wire in wires for wait in wire.latencies or ())
            deltas = sum(wire.deltas for wire in wires)
            return {
                "held %": 100 * sum(wait < 1 for wait in waits) / (conversations * frames),
                "deltas/frame": len(waits) / deltas,
                "p50 ms": 1000 * quantile(waits, 0.5),
                "p99 ms": 1000 * quantile(waits, 0.99),
                "longest gap ms": 1000 * max(wire.longest_gap for wire in wires),
                "% of the core": 100 * spent / (time.monotonic() - began),
                "µs/delta": 1e6 * spent / len(waits),
            }
        finally:
            close_all(wires)

    return measure


async def idle(server: Server, scale: float) -> Numbers:
    """Sockets that say nothing, each of a conversation of its own; and what the next one costs."""
    sockets = max(200, round(5000 * scale))
    fifth = sockets // 5
    probe = max(20, fifth // 4)
    wires = await opened(server, [str(uuid4()) for _ in range(fifth // 2)])
    try:
        await asyncio.sleep(1)
        held, few = server.cost.memory, len(wires)
        wires += await opened(server, [str(uuid4()) for _ in range(fifth - few - probe)])
        early, _ = await _connect_cost(server, wires, probe)
        wires += await opened(server, [str(uuid4()) for _ in range(sockets - fifth - probe)])
        late, resting = await _connect_cost(server, wires, probe)
        await asyncio.sleep(1)
        each = (server.cost.memory - held) / (len(wires) - few)
        return {
            "KiB/socket": each / 1024,
            "% of a core": 100 * resting,
            "connect ms": late * 1000,
            f"connect at {sockets} / at {fifth}": late / early,
        }
    finally:
        close_all(wires)


async def _connect_cost(server: Server, wires: list[Wire], count: int) -> tuple[float, float]:
    """Seconds of the server's CPU for each of the next sockets, and a second for those at rest."""
    before, began = server.cost.cpu, time.monotonic()
    await asyncio.sleep(REST)
    resting = (server.cost.cpu - before) / (time.monotonic() - began)
    before, began = server.cost.cpu, time.monotonic()
    wires += await opened(server, [str(uuid4()) for _ in range(count)])
    spent = server.cost.cpu - before - resting * (time.monotonic() - began)
    return spent / count, resting


async def resume(server: Server, scale: float) -> Numbers:
    """A tab that comes back to a window of 10 000 frames, half of which it has not seen."""
    assert isinstance(server, Ours)
    frames = round(10_000 * min(1.0, scale * 2))
    conv = str(uuid4())
    await _whole_answer(server, conv, frames)
    epoch, head = await server.cursor(conv)
    missed = frames // 2
    took = []
    for _ in range(5):
        began = time.monotonic()
        wire = await server.open(conv, cursor=f"{epoch}.{head - missed}")
        await wire.count(missed + 1 - wire.frames)
        took.append(time.monotonic() - began)
        wire.close()
    return {"frames": missed, "ms": 1000 * statistics.median(took)}


async def growth(server: Server, scale: float) -> Numbers:
    """An answer of 10 000 deltas: does a piece cost more the longer the answer is?"""
    frames = round(10_000 * max(0.2, min(1.0, scale * 2)))
    conv = str(uuid4())
    [wire] = await opened(server, [conv])
    try:
        begins = time.monotonic() + LEAD
        await server.order(conv, Orders(frames=frames, at=begins), wire)
        await asyncio.sleep(begins - time.monotonic() - 0.05)
        halfway, whole = wire.count(frames // 2), wire.count(frames)
        costs = [server.cost.cpu]
        for moment in (halfway, whole):
            await moment
            costs.append(server.cost.cpu)
        first, second = costs[1] - costs[0], costs[2] - costs[1]
        return {"second half / first half": second / first}
    finally:
        wire.close()


async def first_frame(server: Server, scale: float) -> Numbers:
    """From a prompt's POST to its first frame on an open socket; from a connect to `ws.hello`.

    Times are from the moment the client begins to send, to the moment it has the frame.
    """
    assert isinstance(server, Ours)
    conv = str(uuid4())
    wire, caller = await server.open(conv), await server.caller().open()
    prompt = json.dumps({"prompt": Orders(frames=1).encode(), "conv_id": conv}).encode()
    posted, greeted, accepted = [], [], []
    for _ in range(max(20, round(200 * scale))):
        end, first = wire.end(), wire.count(1)
        began = time.monotonic()
        assert await caller.post("/chat", prompt) == 200
        posted.append(await first - began)
        await end
        await asyncio.sleep(APART)
        began = time.monotonic()
        other = await server.open(conv)
        greeted.append(other.first_at - began)
        accepted.append(other.first_at - other.opened_at)
        other.close()
        await asyncio.sleep(APART)
    wire.close()
    caller.close()
    return {
        "POST p50 ms": 1000 * statistics.median(posted),
        "p99 ms": 1000 * quantile(sorted(posted), 0.99),
        "connect p50 ms": 1000 * statistics.median(greeted),
        "p99 ms ": 1000 * quantile(sorted(greeted), 0.99),
        "accept p50 ms": 1000 * statistics.median(accepted),
    }


async def _whole_answer(server: Server, conv: str, frames: int) -> None:
    wire = await server.open(conv)
    end = wire.end()
    await server.order(conv, Orders(frames=frames), wire)
    await end
    wire.close()


async def opened(server: Server, convs: Sequence[str]) -> list[Wire]:
    """A socket for each, 20 at a time."""
    wires: list[Wire] = []
    for start in range(0, len(convs), 20):
        wires += await asyncio.gather(*(server.open(conv) for conv in convs[start : start + 20]))
    return wires


def close_all(wires: Sequence[Wire]) -> None:
    for wire in wires:
        wire.close()


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] if ordered else float("nan")


def scenarios(machinery: Machinery) -> Sequence[Scenario]:
    """All of them, by the servers that take part."""

    def of(*names: str) -> tuple[str, ...]:
        return tuple(name for name in names if name in machinery.only)

    missing = (CHAINLIT,) if machinery.chainlit is None else ()
    shared = (PLAIN, *OURS, *STOCK)  # a session of Chainlit has one socket

    return (
        Scenario(
            name="a",
            title="One conversation, 1 socket, as fast as possible",
            servers=of(*ALL),
            measure=fan_out(1, 30_000),
            missing=missing,
        ),
        *(
            Scenario(
                name=f"b{sockets}",
                title=f"One conversation, {sockets} sockets",
                servers=of(*shared),
                measure=fan_out(sockets, 100_000),
            )
            for sockets in (10, 100, 1000)
        ),
        Scenario(
            name="b100p",
            title="One conversation, 100 sockets, 200 events/s: too far apart to go out together",
            servers=of(*shared),
            measure=fan_out(100, 100_000, per_second=200),
        ),
        Scenario(
            name="c",
            title="500 conversations × 20 events/s",
            servers=of(*ALL),
            measure=many_streams(500, 20, 5),
            missing=missing,
        ),
        Scenario(
            name="d",
            title="Idle sockets, each of its own conversation",
            servers=of(*ALL),
            measure=idle,
            fresh=True,
            relative=(),
            missing=missing,
        ),
        Scenario(
            name="e",
            title="Resume of half a full window",
            servers=of(*OURS),
            measure=resume,
            relative=(),
        ),
        Scenario(
            name="f",
            title="An answer of 10 000 deltas, as it grows",
            servers=of(*OURS),
            measure=growth,
            relative=(),
        ),
        Scenario(
            name="g",
            title="A prompt's POST to its first frame",
            servers=of(*OURS),
            measure=first_frame,
            relative=(),
        ),
        Scenario(
            name="h",
            title="60 streams of a model's service × 50 deltas/s, on one core",
            servers=of(*OURS),
            measure=of_a_service(60, 50, 20),
            fresh=True,
            by_model=True,
            relative=(),
        ),
    )
