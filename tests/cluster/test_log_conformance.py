"""The log in memory and the log in Redis against one model; and what only one of many can meet.

Where they differ it is said here: the log in Redis names its entries, so it proves a place by the
entry that was seen last, and it keeps what no stored snapshot covers yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from chat.frames import Cursor, LlmDelta, encode_body, envelope, utf8_size
from chat.log import Entry, FrameLog, Gap, LogWriter, MemoryFrameLog, Numbered, Window
from chat.redis_log import RedisFrameLog, RedisLogWriter
from chat.timeline import Timeline
from cluster.leases import Lease, LeaseLost, Leases
from cluster.store import NOTHING, Batch, Bounds, Extra, Keys, RedisStore, Written
from tests.chat.wire import frames_of, inference

T = TypeVar("T")
FRAMES = frames_of(chain.from_iterable(inference(n, "a", "b" * n) for n in range(1, 60)))


class Clock:
    ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


class One:
    """A process that may own the conversation, and its log."""

    def __init__(self, url: str, conv_id: str, window: Window, clock: Clock) -> None:
        self.client = Redis.from_url(url)
        self.store = RedisStore(
            self.client,
            bounds=Bounds(
                frames=window.frames,
                bytes=window.bytes,
                age_ms=round(window.seconds * 1000),
                ttl_seconds=600,
            ),
        )
        self.leases = Leases(
            self.store,
            str(uuid4()),
            on_lost=lambda lease: None,
            on_mail=lambda conv_id: None,
            seconds=60,
        )
        self.conv_id = conv_id
        self.log = self.new_log(window, clock)

    def new_log(self, window: Window, clock: Clock) -> RedisFrameLog:
        """One that has read nothing yet."""
        return RedisFrameLog(
            self.conv_id, store=self.store, leases=self.leases, window=window, now_ms=clock
        )

    async def writer(self) -> RedisLogWriter:
        lease = await self.leases.claim(self.conv_id)
        assert isinstance(lease, Lease)
        await self.log.level()
        return RedisLogWriter(self.log, lease, extra=lambda: NOTHING)

    async def run_out(self) -> None:
        """The store's clock has passed the lease; this process does not know it yet."""
        await self.client.hset(Keys(self.conv_id).meta, "until", "0")

    async def aclose(self) -> None:
        await self.leases.aclose()
        await self.client.aclose()


def numbered(writer: LogWriter, count: int, *, at_ms: int) -> list[Numbered]:
    """The next frames, as the coordinator hands them to the log."""
    ids, after = writer.stream_ids(), writer.head.seq
    batch = []
    for seq, frame in enumerate(FRAMES[after : after + count], after + 1):
        text = envelope(encode_body(frame), seq, ids(seq))
        batch.append(Numbered(frame, Entry(seq, at_ms, text, utf8_size(text), ids(seq), "E")))
    return batch


def folded(batch: Sequence[Numbered]) -> Timeline:
    timeline = Timeline()
    for frame, entry in batch:
        timeline.fold(frame, seq=entry.seq, at_ms=entry.at_ms)
    return timeline


def state_of(timeline: Timeline) -> object:
    return msgspec.to_builtins(timeline.state())


class LogMachine(RuleBasedStateMachine):
    """A list that forgets nothing, and one number: the first frame that a window must keep."""

    url: str | None

    @initialize(
        frames=st.integers(1, 30),
        size=st.sampled_from([300, 1500, 10**6]),
        seconds=st.sampled_from([2, 3600]),
    )
    def begin(self, frames: int, size: int, seconds: int) -> None:
        self.loop = asyncio.Runner()
        self.clock = Clock()
        self.window = Window(frames=frames, bytes=size, seconds=seconds)
        self.all: list[Numbered] = []
        self.first = 0
        self.processes: list[One] = []
        self.writer: LogWriter
        self.readers: Sequence[FrameLog]
        if self.url is None:
            log = MemoryFrameLog("c", epoch=7, window=self.window, now_ms=self.clock)
            self.writer, self.readers = log, [log]
            return
        self.run(self._begin(self.url))

    async def _begin(self, url: str) -> None:
        conv = str(uuid4())
        self.processes = [One(url, conv, self.window, self.clock) for _ in range(2)]
        self.writer = await self.processes[0].writer()
        self.readers = [process.log for process in self.processes]

    def run(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(verb)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for process in self.processes:
                self.run(process.aclose())
            self.loop.close()

    def forget(self) -> None:
        """What a window need not keep any more."""
        oldest = self.clock.ms - self.window.seconds * 1000
        kept = [entry for _, entry in self.all[self.first :]]
        while kept and (
            len(kept) > self.window.frames
            or sum(entry.size for entry in kept) > self.window.bytes
            or kept[0].at_ms < oldest
        ):
            kept.pop(0)
            self.first += 1

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        batch = numbered(self.writer, count, at_ms=self.clock.ms)
        self.run(self.writer.append(batch))
        self.all += batch

    @rule(ms=st.integers(0, 1500))
    def pass_time(self, ms: int) -> None:
        self.clock.ms += ms

    @rule(place=st.integers(0, 1))
    def take_over(self, place: int) -> None:
        """Another process goes on with it; who had it writes nothing more."""
        if not self.processes:
            return
        zombie = self.writer
        self.run(self.processes[0].run_out())
        self.processes.append(self.processes.pop(0))
        self.writer = self.run(self.processes[0].writer())
        assert self.writer.head.seq == len(self.all)
        with pytest.raises(LeaseLost):
            self.run(zombie.append(numbered(zombie, 2, at_ms=self.clock.ms)))

    @rule(data=st.data(), limit=st.integers(1, 5))
    def read(self, data: st.DataObject, limit: int) -> None:
        log = data.draw(st.sampled_from(self.readers))
        seq = data.draw(st.integers(0, len(self.all) + 2))
        self.run(log.refresh())
        id = self.all[seq - 1].entry.stream_id if self.ours(seq) else None
        cursor = Cursor(log.epoch, seq, id)
        page = self.run(log.read(cursor, limit=limit))
        self.forget()
        expected = [entry for _, entry in self.all[seq : seq + limit]]
        if seq > len(self.all):
            assert page == Gap("ahead")
        elif seq == len(self.all) or seq > self.first or seq == self.first == 0:
            assert not isinstance(page, Gap)
            assert list(page) == expected
        elif not self.processes:
            assert list(page) == expected if seq == self.first else page == Gap("window")
        else:
            assert page == Gap("window") or list(page) == expected

    @rule(data=st.data())
    def read_with_another_life_s_cursor(self, data: st.DataObject) -> None:
        log = data.draw(st.sampled_from(self.readers))
        seq = data.draw(st.integers(0, len(self.all) + 2))
        self.run(log.refresh())
        assert self.run(log.read(Cursor(log.epoch + 1, seq), limit=3)) == Gap("epoch")
        self.forget()
        if self.ours(seq) and seq > self.first + 1:
            wrong = Cursor(log.epoch, seq, f"{seq}-1")
            assert self.run(log.read(wrong, limit=3)) == Gap("diverged")

    def ours(self, seq: int) -> bool:
        return 0 < seq <= len(self.all)

    @invariant()
    def every_fold_is_that_of_all_frames(self) -> None:
        if not hasattr(self, "writer"):
            return
        expected = state_of(folded(self.all))
        for log in self.readers:
            assert state_of(self.run(log.level())) == expected
            assert log.head.seq == len(self.all)
        assert self.run(self.readers[-1].snapshot()).version == len(self.all)
        if self.processes:
            newcomer = self.processes[1].new_log(self.window, self.clock)
            assert state_of(self.run(newcomer.level())) == expected
            assert newcomer.head.seq == len(self.all)


@pytest.mark.parametrize(("where", "examples"), [("memory", 25), ("redis", 20)])
def test_any_order_of_appends_reads_time_and_owners_agrees_with_a_list(
    where: str, examples: int, redis_url: str
):
    machine: Any = type("Machine", (LogMachine,), {"url": redis_url if where == "redis" else None})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[One, One, Clock]]:
    clock, conv = Clock(), str(uuid4())
    one, other = (One(url, conv, Window(), clock) for _ in range(2))
    yield one, other, clock
    await one.aclose()
    await other.aclose()


async def test_who_comes_hours_later_finds_what_no_snapshot_covers(redis_url: str):
    async with two(redis_url) as (one, other, clock):
        writer = await one.writer()
        batch = numbered(writer, 4, at_ms=clock.ms)
        await writer.append(batch)
        clock.ms += 5 * 3_600_000

        assert state_of(await other.log.level()) == state_of(folded(batch))
        late = numbered(writer, 1, at_ms=clock.ms)
        await writer.append(late)
        newcomer = other.new_log(Window(), clock)
        assert state_of(await newcomer.level()) == state_of(folded([*batch, *late]))


async def test_what_is_at_hand_is_for_a_cursor_that_is_proved(redis_url: str):
    async with two(redis_url) as (one, _, clock):
        writer = await one.writer()
        batch = numbered(writer, 4, at_ms=clock.ms)
        await writer.append(batch)
        entries = [entry for _, entry in batch]
        seen = Cursor(one.log.epoch, 2, entries[1].stream_id)
        assert list(one.log.read_now(seen, limit=9) or ()) == entries[2:]
        assert one.log.read_now(Cursor(one.log.epoch, 2, "2-1"), limit=9) is None


async def test_an_append_whose_answer_was_lost_is_written_once(redis_url: str):
    async with two(redis_url) as (one, other, clock):
        writer = await one.writer()
        batch = [
            Written(e.stream_id or "", e.at_ms, e.size, e.event, e.text)
            for _, e in numbered(writer, 4, at_ms=clock.ms)
        ]
        lease = one.leases.get(one.conv_id)
        assert lease is not None
        for _ in range(3):
            answer = await one.store.append(
                one.conv_id,
                one.leases.process,
                lease.claim,
                Batch(prev_seq=0, prev_id="", active="", queued=0, entries=batch),
                ttl_ms=60_000,
                now_ms=clock.ms,
            )
            assert answer.refusal is None
        assert [entry.seq for entry in await other.log.window()] == [1, 2, 3, 4]


Saved = list[tuple[str, bytes | None]]


async def saved(one: One) -> Saved:
    keys = Keys(one.conv_id)
    return [(name, await one.client.dump(name)) for name in (keys.meta, keys.log, keys.snap)]


async def roll_back(one: One, to: Saved) -> None:
    """As after a restart of Redis with an older file."""
    for name, dump in to:
        await one.client.delete(name)
        if dump is not None:
            await one.client.restore(name, 0, dump)


async def test_a_log_that_went_back_is_found_by_its_owner_and_by_every_cursor(redis_url: str):
    async with two(redis_url) as (one, other, clock):
        writer = await one.writer()
        await writer.append(numbered(writer, 4, at_ms=clock.ms))
        before = await saved(one)
        await writer.append(numbered(writer, 4, at_ms=clock.ms))
        seen = one.log.head
        await roll_back(one, before)

        assert await other.log.read(seen, limit=9) == Gap("ahead")
        with pytest.raises(LeaseLost):
            await writer.append(numbered(writer, 4, at_ms=clock.ms))
        anew = await one.writer()
        assert anew.head.epoch > seen.epoch
        assert anew.head.seq == 4
        await anew.append(numbered(anew, 6, at_ms=clock.ms))
        assert await other.log.read(seen, limit=9) == Gap("epoch")


async def test_who_goes_on_with_a_log_that_went_back_gives_no_entry_an_old_name(redis_url: str):
    async with two(redis_url) as (one, other, clock):
        writer = await one.writer()
        await writer.append(numbered(writer, 4, at_ms=clock.ms))
        before = await saved(one)
        await writer.append(numbered(writer, 4, at_ms=clock.ms))
        seen = one.log.head
        await roll_back(one, before)
        await one.run_out()
        successor = await other.writer()
        await successor.append(numbered(successor, 6, at_ms=clock.ms))

        assert successor.head.seq > seen.seq
        assert await other.log.read(seen, limit=9) == Gap("diverged")


async def test_where_all_is_gone_a_new_epoch_begins(redis_url: str):
    async with two(redis_url) as (one, other, clock):
        writer = await one.writer()
        await writer.append(numbered(writer, 4, at_ms=clock.ms))
        old = one.log.head
        keys = Keys(one.conv_id)
        await one.client.delete(keys.meta, keys.log, keys.snap)

        assert await other.log.read(old, limit=9) == Gap("epoch")
        successor = await other.writer()
        assert (successor.head.seq, successor.head.epoch > old.epoch) == (0, True)
        assert await other.log.window() == []


async def test_of_all_who_claim_at_once_one_is_the_owner_and_each_fence_has_one(redis_url: str):
    conv, clock = str(uuid4()), Clock()
    processes = [One(redis_url, conv, Window(), clock) for _ in range(6)]
    fences = []
    for _ in range(5):
        await asyncio.gather(*(each.leases.claim(conv) for each in processes * 2))
        held = [(each, lease) for each in processes if (lease := each.leases.get(conv)) is not None]
        [(owner, lease)] = held
        fences.append(lease.claim.fence)
        await owner.run_out()
        owner.leases.abandon(lease, "fenced")
    assert fences == sorted(set(fences))
    for each in processes:
        await each.aclose()


async def test_a_lease_is_not_given_up_while_mail_waits(redis_url: str):
    async with two(redis_url) as (one, other, _):
        lease = await one.leases.claim(one.conv_id)
        assert isinstance(lease, Lease)
        mail = await other.store.post(one.conv_id, b"{}")
        assert not await one.leases.release(lease, mail_done="")
        assert one.leases.get(one.conv_id) is lease
        assert await one.leases.release(lease, mail_done=mail)
        assert isinstance(await other.leases.claim(one.conv_id), Lease)


async def test_text_that_grows_has_no_state_encoded_beside_it(redis_url: str):
    async with two(redis_url) as (one, _, clock):
        asked = 0

        def state() -> Extra:
            nonlocal asked
            asked += 1
            return NOTHING

        lease = await one.leases.claim(one.conv_id)
        assert isinstance(lease, Lease)
        await one.log.level()
        writer = RedisLogWriter(one.log, lease, extra=state)
        for _ in range(20):
            [(frame, entry)] = batch = numbered(writer, 1, at_ms=clock.ms)
            before = asked
            is_text = isinstance(frame, LlmDelta)
            assert await writer.append(batch) is (not is_text), entry.text
            assert asked - before == (not is_text), entry.text
        before = asked
        await writer.commit()
        assert asked == before + 1
