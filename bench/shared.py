"""What it costs to be one of several processes on a Redis. Scenarios, as in scenarios.py."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from uuid import uuid4

import psutil

from chat.coordinator import StreamCoordinator
from chat.counts import StreamCounts
from chat.log import Window
from chat.redis_log import RedisFrameLog, RedisLogWriter
from cluster.connect import connect
from cluster.leases import Lease, Leases
from cluster.store import NOTHING, Bounds, RedisStore
from sessions_app.inference.events import InferenceStarted, ModelCallStarted, Origin, TextDelta

from .client import Wire
from .orders import PIECE, Orders
from .scenarios import (
    Numbers,
    Scenario,
    close_all,
    first_frame,
    opened,
    quantile,
)
from .servers import OURS, PAIR, PAIR_CORE, Cost, Machinery, Ours, Pair, Server

WRITERS = 200
"""Conversations that one process writes at once."""
LEASE_WAIT = 20.0
STORM_WAIT = 90.0


async def appends(server: Server, scale: float) -> Numbers:
    """What one process can write: the coordinators and logs of many conversations, without sockets.

    A frame in each batch, as models speak; and twenty, as when the log is behind.
    """
    assert isinstance(server, Pair)
    alone = await _written(server, batches=max(5, round(40 * scale)), frames=1)
    many = await _written(server, batches=max(2, round(10 * scale)), frames=20)
    return {
        "1 a batch: /s": alone["/s"],
        "µs": alone["µs"],
        "Redis µs": alone["Redis µs"],
        "20 a batch: /s": many["/s"],
        "µs ": many["µs"],
        "Redis µs ": many["Redis µs"],
    }


async def _written(server: Pair, *, batches: int, frames: int) -> Numbers:
    client = connect(server.redis_url)
    window = Window()
    store = RedisStore(client, bounds=Bounds(window.frames, window.bytes, 3_600_000, 3600))
    leases = Leases(store, str(uuid4()), on_lost=lambda lease: None, on_mail=lambda conv_id: None)
    counts = StreamCounts()
    writers = [await _writer(store, leases, window, counts) for _ in range(WRITERS)]
    me = psutil.Process(os.getpid())
    before, mine, spent = counts.frames, Cost.of(me).cpu, server.store_cpu
    began = time.monotonic()

    async def speak(writer: StreamCoordinator) -> None:
        origins = (_origin(), _origin())  # deltas of two causes are not merged
        for _ in range(batches):
            for number in range(frames):
                writer.publish(TextDelta(PIECE), origins[number % 2])
            await writer.flush()

    await asyncio.gather(*map(speak, writers))
    took, written = time.monotonic() - began, counts.frames - before
    numbers = {
        "/s": written / took,
        "µs": 1e6 * (Cost.of(me).cpu - mine) / written,
        "Redis µs": 1e6 * (server.store_cpu - spent) / written,
    }
    for writer in writers:
        await writer.aclose()
    await leases.aclose()
    await client.aclose()
    return numbers


def _origin() -> Origin:
    return Origin(inference_id="i", turn_id="t")


async def _writer(
    store: RedisStore, leases: Leases, window: Window, counts: StreamCounts
) -> StreamCoordinator:
    """The coordinator of a new conversation in which an answer has begun."""
    log = RedisFrameLog(str(uuid4()), store=store, leases=leases, window=window)
    lease = await leases.claim(log.conv_id)
    assert isinstance(lease, Lease)
    await log.level()
    writer = StreamCoordinator(
        RedisLogWriter(log, lease, extra=lambda: NOTHING), wake=lambda: None, counts=counts
    )
    writer.publish(
        InferenceStarted(
            inference_id="i", turn_id="t", profile="p", model="m", idempotency_key="k"
        ),
        _origin(),
    )
    writer.publish(ModelCallStarted(message_id="m", model="m"), _origin())
    await writer.flush()
    return writer


class _Spent:
    """What servers, Redis and this process use between two moments, for each delivered frame.

    Both servers, or the one that is named.
    """

    def __init__(self, pair: Pair, server: Server | None = None) -> None:
        self._pair = pair
        self._server = server or pair
        self._before = self._now()

    def _now(self) -> tuple[float, float, float]:
        mine = Cost.of(psutil.Process(os.getpid())).cpu
        return self._server.cost.cpu, self._pair.store_cpu, mine

    def numbers(self, frames: int) -> Numbers:
        servers, store, mine = (
            now - then for now, then in zip(self._now(), self._before, strict=True)
        )
        return {
            "µs/frame": 1e6 * servers / frames,
            "Redis µs/frame": 1e6 * store / frames,
            "generator %": 100 * mine / (mine + servers + store),
        }


def across(
    conversations: int, per_second: float, seconds: float, *, owners: int = 1
) -> Callable[[Server, float], Awaitable[Numbers]]:
    """So many conversations, each with one socket; half of the sockets at the other process.

    With two `owners` each process answers half of the conversations. What is told of the store is
    also what a machine is sized by: memory of a conversation, bytes for a frame.
    """

    async def measure(server: Server, scale: float) -> Numbers:
        assert isinstance(server, Pair)
        places = (server.first, server.second)
        frames = max(10, round(per_second * seconds * min(1.0, scale * 2)))
        count = max(4, round(conversations * min(1.0, scale)))
        convs = [str(uuid4()) for _ in range(count)]
        with ExitStack() as stack:
            held = (await server.store_info())["used_memory"]
            here: list[tuple[Ours, str]] = []
            there: list[tuple[Ours, str]] = []
            begins = time.monotonic() + 2.0 + count * 0.06
            posts = []
            for number, conv in enumerate(convs):
                owner = places[number % owners]
                at = begins + number / count / per_second
                orders = Orders(frames=frames, per_second=per_second, at=at, stamped=True)
                posts.append((owner, conv, orders))
                # Of each owner's conversations every other one is watched elsewhere.
                (there if number // owners % 2 or count == 1 else here).append((owner, conv))
            if conversations == 1:
                here = list(there)
            # Who is asked first becomes the owner, so sockets come afterwards.
            for start in range(0, count, 10):
                await asyncio.gather(
                    *(owner.order(conv, orders) for owner, conv, orders in posts[start:][:10])
                )
            near = await _at(here, lambda owner: owner, stack)
            far = await _at(there, lambda owner: places[owner is places[0]], stack)
            late = time.monotonic() - begins
            assert late < 0, f"prompts and sockets took {late:.1f} s longer than they should"
            await asyncio.sleep(begins - time.monotonic() - 0.05)
            wires = [*near, *far]
            for wire in wires:
                wire.latencies = []
            ends = [wire.end() for wire in wires]
            before, info = sum(wire.frames for wire in wires), await server.store_info()
            spent = _Spent(server)
            await asyncio.wait(ends, timeout=frames / per_second + 15)
            numbers = dict(spent.numbers(sum(wire.frames for wire in wires) - before))
            after = await server.store_info()
            in_time = sum(wait < 1 for wire in wires for wait in wire.latencies or ())
            deltas = sum(wire.deltas for wire in wires)
            said = count * frames
            return {
                "held %": 100 * in_time / (len(wires) * frames),
                **_latency("owner", near),
                **_latency("other", far),
                **numbers,
                "events/frame": len(wires) * frames / max(1, deltas),
                "Redis B in": (after["total_net_input_bytes"] - info["total_net_input_bytes"])
                / said,
                "B out": (after["total_net_output_bytes"] - info["total_net_output_bytes"]) / said,
                "KiB/conv": (after["used_memory"] - held) / 1024 / count,
            }

    return measure


async def _at(
    convs: Sequence[tuple[Ours, str]], place: Callable[[Ours], Ours], stack: ExitStack
) -> list[Wire]:
    wires: list[Wire] = []
    for start in range(0, len(convs), 20):
        some = convs[start : start + 20]
        wires += await asyncio.gather(*(place(owner).open(conv) for owner, conv in some))
    stack.callback(close_all, wires)
    return wires


def _latency(where: str, wires: Sequence[Wire]) -> Numbers:
    waits = sorted(wait for wire in wires for wait in wire.latencies or ())
    return {
        f"{where} p50 ms": 1000 * quantile(waits, 0.5),
        f"{where} p99 ms": 1000 * quantile(waits, 0.99),
    }


async def takeover(server: Server, scale: float) -> Numbers:
    """The owner is killed in the midst of answers: until sockets elsewhere are told their end."""
    assert isinstance(server, Pair)
    convs = [str(uuid4()) for _ in range(max(5, round(20 * scale)))]
    orders = Orders(frames=2000, per_second=20)
    for conv in convs:
        await server.first.order(conv, orders)
    wires = await opened(server.second, convs)
    try:
        flowing = [wire.count(5) for wire in wires]
        await asyncio.wait(flowing, timeout=LEASE_WAIT)
        ends = [wire.end() for wire in wires]
        killed = time.monotonic()
        server.first.kill()
        done, _ = await asyncio.wait(ends, timeout=LEASE_WAIT)
        took = sorted(end.result() - killed for end in done)
        return {
            "told %": 100 * len(took) / len(convs),
            "p50 s": statistics.median(took),
            "max s": took[-1],
        }
    finally:
        close_all(wires)


async def storm(server: Server, scale: float) -> Numbers:
    """All sockets of a killed process come back with cursors to the other, at once.

    Ten sockets for each conversation; each has missed half of an answer.
    """
    assert isinstance(server, Pair)
    sockets = max(200, round(5000 * scale))
    convs = [str(uuid4()) for _ in range(sockets // 10)]
    for start in range(0, len(convs), 10):
        orders = Orders(frames=40, per_second=20)
        await asyncio.gather(
            *(server.first.order(conv, orders) for conv in convs[start : start + 10])
        )
    everybody = [conv for conv in convs for _ in range(10)]
    lost = await opened(server.first, everybody)
    await asyncio.sleep(2)  # the last answers have ended
    places = [place for place in await server.halves(convs) for _ in range(10)]
    server.first.kill()
    close_all(lost)
    spent, began = _Spent(server, server.second), time.monotonic()
    back = [
        server.second.wire(conv, cursor=cursor)
        for conv, (cursor, _) in zip(everybody, places, strict=True)
    ]
    caught_up = [wire.count(missed + 1) for wire, (_, missed) in zip(back, places, strict=True)]
    turn = asyncio.Semaphore(200)  # connects under way, as a listener's backlog allows

    async def come(wire: Wire) -> None:
        async with turn:
            await wire.open()

    try:
        await asyncio.gather(*map(come, back), return_exceptions=True)
        done, _ = await asyncio.wait(caught_up, timeout=STORM_WAIT)
        took = sorted(each.result() - began for each in done if each.exception() is None)
        costs = spent.numbers(sockets)
        return {
            "missed frames": statistics.mean(missed for _, missed in places),
            "caught up %": 100 * len(took) / sockets,
            "p50 s": quantile(took, 0.5),
            "last s": quantile(took, 1),
            "ms/socket": costs["µs/frame"] / 1000,
            "Redis ms": costs["Redis µs/frame"] / 1000,
            "generator %": costs["generator %"],
        }
    finally:
        close_all(back)


def shared_scenarios(machinery: Machinery) -> Sequence[Scenario]:
    """Those with several processes, by the servers that take part."""

    def of(*names: str) -> tuple[str, ...]:
        return tuple(name for name in names if name in machinery.only)

    return (
        Scenario(
            name="r1",
            title=f"Appends of one process, {WRITERS} conversations at once",
            servers=of(PAIR),
            measure=appends,
            relative=(),
        ),
        Scenario(
            name="r2",
            title="One conversation × 200 events/s, a socket at its owner and one elsewhere",
            servers=of(PAIR, PAIR_CORE),
            measure=across(1, 200, 4),
            relative=(),
        ),
        Scenario(
            name="r3",
            title="500 conversations × 20 events/s, two owners, half of the sockets elsewhere",
            servers=of(PAIR),
            measure=across(500, 20, 5, owners=2),
            most_rounds=2,
            relative=(),
        ),
        Scenario(
            name="r4",
            title="kill -9 of the owner of 20 answers, until sockets elsewhere have the end",
            servers=of(PAIR),
            measure=takeover,
            fresh=True,
            most_rounds=2,
            relative=(),
        ),
        Scenario(
            name="r5",
            title="5 000 sockets come back with cursors after a kill -9",
            servers=of(PAIR),
            measure=storm,
            fresh=True,
            most_rounds=1,
            relative=(),
        ),
        Scenario(
            name="r6",
            title="A prompt's POST to its first frame, in memory and on Redis",
            servers=of(OURS[0], PAIR),
            measure=lambda server, scale: first_frame(server, scale * 0.4),
            most_rounds=2,
            relative=(),
        ),
        Scenario(
            name="r7",
            title="The layer: 100 conversations × 20 events/s",
            servers=of(PAIR, PAIR_CORE),
            measure=across(100, 20, 3, owners=2),
            most_rounds=2,
            relative=(),
        ),
    )
