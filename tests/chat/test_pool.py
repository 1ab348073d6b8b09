"""A socket's outbox: bounded, contiguous, and behind rather than wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.counts import StreamCounts
from chat.frames import Cursor
from chat.log import Entry
from chat.pool import CLOSE_RATE, Connection, ConnectionPool, Flow

pytestmark = pytest.mark.virtual


def entries(first: int, last: int, size: int = 10) -> list[Entry]:
    return [Entry(seq, 0, f"frame {seq}", size) for seq in range(first, last + 1)]


def connection(seq: int = 0, **flow: float) -> Connection:
    """A live connection that has everything up to `seq`."""
    made = Connection(flow=Flow(**flow))  # type: ignore[arg-type]
    made.cursor = Cursor(1, seq)
    made.live = True
    return made


def position(one: Connection) -> int:
    assert one.cursor is not None
    return one.cursor.seq


def taken(one: Connection) -> list[int]:
    return [entry.seq for entry in one.take()]


# The outbox


def test_what_is_offered_in_order_is_taken_in_order():
    one = connection()
    assert one.offer(entries(1, 3))
    assert one.offer(entries(4, 5))
    assert one.depth == 5
    assert taken(one) == [1, 2, 3, 4, 5]
    assert (one.depth, position(one)) == (0, 5)
    assert taken(one) == []


def test_a_batch_that_leaves_a_hole_is_refused_and_the_connection_falls_behind():
    one = connection(seq=3)
    assert not one.offer(entries(5, 6))
    assert not one.live
    assert (one.depth, position(one)) == (0, 3)


def test_what_it_already_has_is_not_given_twice():
    one = connection(seq=3)
    assert one.offer(entries(1, 3))
    assert one.offer(entries(2, 5))
    assert taken(one) == [4, 5]
    assert one.live


def written(first: int, last: int, by: str) -> list[Entry]:
    """As a log that is shared names its frames."""
    return [
        msgspec.structs.replace(each, stream_id=f"{each.seq}-{by}") for each in entries(first, last)
    ]


@pytest.mark.parametrize("first", [2, 3, 4])
def test_a_log_that_went_back_goes_on_at_no_socket_that_saw_the_other_end_of_it(first: int):
    one = connection()
    one.cursor = Cursor(1, 3, "3-one")
    assert one.offer(written(1, 2, by="another"))
    offered = written(first, 5, by="another")
    after = Cursor(1, first - 1, f"{first - 1}-another")
    assert not one.offer(offered, after=after)
    assert not one.live
    assert (one.depth, position(one)) == (0, 3)


@pytest.mark.parametrize("first", [2, 3, 4])
def test_a_socket_ahead_of_the_others_goes_on_where_the_log_is_as_it_saw_it(first: int):
    one = connection()
    one.cursor = Cursor(1, 3, "3-one")
    after = Cursor(1, first - 1, f"{first - 1}-one")
    assert one.offer(written(first, 5, by="one"), after=after)
    assert taken(one) == [4, 5]


@pytest.mark.parametrize(("frames", "fits"), [(4, True), (5, False)])
def test_an_outbox_holds_its_number_of_frames_and_no_more(frames: int, fits: bool):
    one = connection(outbox_frames=4)
    assert one.offer(entries(1, frames)) is fits
    assert one.live is fits


@pytest.mark.parametrize(("size", "fits"), [(25, True), (26, False)])
def test_an_outbox_holds_its_number_of_bytes_and_no_more(size: int, fits: bool):
    one = connection(outbox_bytes=100)
    assert one.offer(entries(1, 3, size=25))
    assert one.offer(entries(4, 4, size=size)) is fits


def test_a_full_outbox_keeps_what_it_has_and_its_place():
    one = connection(outbox_frames=4)
    one.offer(entries(1, 3))
    assert not one.offer(entries(4, 5))
    assert taken(one) == [1, 2, 3]
    assert position(one) == 3


def test_an_emptied_outbox_holds_as_much_as_a_new_one():
    one = connection(outbox_frames=4, outbox_bytes=40)
    for first in range(1, 40, 4):
        assert one.offer(entries(first, first + 3))
        taken(one)


def test_the_defaults_are_512_frames_and_half_a_mebibyte():
    assert connection().offer(entries(1, 512))
    assert not connection().offer(entries(1, 513))
    assert connection().offer(entries(1, 2, size=256 * 1024))
    assert not connection().offer(entries(1, 2, size=256 * 1024 + 1))


def test_a_replay_moves_past_what_was_read_and_refuses_a_hole():
    one = connection(seq=3)
    one.replay(entries(4, 6))
    assert position(one) == 6
    with pytest.raises(AssertionError):
        one.replay(entries(8, 9))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 8)) | st.sampled_from(["take", "read"]),
        max_size=40,
    )
)
def test_whatever_is_offered_what_is_taken_is_dense(steps: list[tuple[int, int] | str]):
    offer_and_take(steps)


def offer_and_take(steps: Sequence[tuple[int, int] | str]) -> None:
    """Fails unless what is taken is dense from 1."""
    one, got = connection(outbox_frames=6), list[int]()
    for step in steps:
        if step == "take":
            got += taken(one)
        elif step == "read" and not one.live:
            got += taken(one)
            page = entries(position(one) + 1, position(one) + 3)
            one.replay(page)
            got += [entry.seq for entry in page]
            one.live = True
        elif isinstance(step, tuple) and one.live:
            first, count = step
            one.offer(entries(first, first + count - 1))
    got += taken(one)
    assert got == list(range(1, len(got) + 1))
    assert position(one) == len(got)


@pytest.mark.parametrize(
    "looks", [lambda seq, position: True, lambda seq, position: seq > position]
)
def test_one_that_does_not_look_whether_a_batch_goes_on_where_it_stands_breaks_that(
    looks: Callable[[int, int], bool], monkeypatch: pytest.MonkeyPatch
):
    def offer(self: Connection, batch: Sequence[Entry]) -> bool:
        batch = [entry for entry in batch if looks(entry.seq, position(self))]
        self._outbox.extend(batch)
        self.cursor = Cursor(1, batch[-1].seq if batch else position(self))
        return True

    monkeypatch.setattr(Connection, "offer", offer)
    with pytest.raises(AssertionError):
        offer_anything()


def offer_anything() -> None:
    dice = random.Random(0)
    for _ in range(20):
        offer_and_take([(dice.randint(1, 30), dice.randint(1, 8)) for _ in range(20)])


# The pool


def test_the_pool_offers_to_those_that_are_live():
    pool, live, behind = ConnectionPool(), connection(), connection()
    behind.live = False
    pool.add(live)
    pool.add(behind)
    pool.offer(entries(1, 2))
    assert (live.depth, behind.depth) == (2, 0)


def test_one_that_cannot_follow_costs_the_others_nothing():
    pool = ConnectionPool()
    slow, fast = connection(outbox_frames=1), connection()
    for one in (slow, fast):
        pool.add(one)
    pool.offer(entries(1, 2))
    assert (slow.live, fast.live) == (False, True)
    assert taken(fast) == [1, 2]


@pytest.mark.parametrize("number", range(4))
def test_a_bug_at_one_costs_the_others_nothing_and_itself_a_look_at_the_log(number: int):
    counts = StreamCounts()
    pool, all_of_them = ConnectionPool(counts), [connection() for _ in range(4)]
    for one in all_of_them:
        pool.add(one)
    broken = all_of_them.pop(number)
    broken.cursor = None  # never so while it is live
    pool.offer(entries(1, 2))

    assert [taken(one) for one in all_of_them] == [[1, 2]] * 3
    assert not broken.live
    assert counts.drops == {"offer_failed": 1}


def test_the_pool_knows_who_is_there():
    pool, one = ConnectionPool(), connection()
    assert len(pool) == 0
    pool.add(one)
    pool.add(one)
    assert list(pool) == [one]
    pool.discard(one)
    pool.discard(one)
    assert len(pool) == 0


def test_a_connection_may_leave_while_the_pool_is_gone_through():
    pool = ConnectionPool()
    for _ in range(5):
        pool.add(connection())
    for one in pool:
        pool.discard(one)
    assert len(pool) == 0


# Replies and the close


def test_replies_come_out_in_order_and_once():
    one = connection()
    one.reply("a")
    one.reply("b")
    assert list(one.take_replies()) == ["a", "b"]
    assert list(one.take_replies()) == []


def test_too_many_unread_replies_close_the_connection():
    one = connection()
    for n in range(32):
        one.reply(str(n))
    assert one.closing is None
    one.reply("one too many")
    assert one.closing == CLOSE_RATE == 4013


def test_a_flood_of_replies_takes_no_more_room_than_their_bound():
    one = connection()
    for n in range(10_000):
        one.reply(str(n))
    assert len(list(one.take_replies())) <= one.flow.replies + 1


def test_the_first_reason_to_close_counts():
    one = connection()
    one.close(4501)
    one.close(4008)
    assert one.closing == 4501


HAPPENINGS: dict[str, Callable[[Connection], object]] = {
    "a batch": lambda one: one.offer(entries(1, 1)),
    "a batch refused": lambda one: one.offer(entries(7, 7)),
    "a reply": lambda one: one.reply("x"),
    "a close": lambda one: one.close(4008),
    "an answer": lambda one: one.acknowledge(0),
    "a wake": lambda one: one.wake(),
}


@pytest.mark.parametrize("happening", HAPPENINGS.values(), ids=HAPPENINGS.keys())
async def test_whoever_waits_is_woken(happening: Callable[[Connection], object]):
    one, before = connection(), asyncio.get_running_loop().time()
    waiting = asyncio.create_task(one.wait(3600))
    await asyncio.sleep(0)
    happening(one)
    assert await waiting
    assert asyncio.get_running_loop().time() == before


async def test_waiting_ends_when_its_time_is_over():
    before = asyncio.get_running_loop().time()
    assert not await connection().wait(30)
    assert asyncio.get_running_loop().time() - before == 30


# Flow control


def full(one: Connection) -> bool:
    """True when no more may be sent before the client answers."""
    return not one.may_send


def send(one: Connection, first: int, last: int, size: int) -> None:
    for seq in range(first, last + 1):
        one.sent(size, seq)


def test_before_its_first_pong_a_client_may_have_16_mebibytes_and_then_1():
    one = connection()
    send(one, 1, 16 * 1024 - 1, 1024)
    assert not full(one)
    one.sent(1024, 16 * 1024)
    assert full(one)
    one.acknowledge(16 * 1024)
    assert not full(one)
    send(one, 16 * 1024 + 1, 17 * 1024 - 1, 1024)
    assert not full(one)
    one.sent(1024, 17 * 1024)
    assert full(one)


def test_an_answer_frees_what_was_sent_up_to_it():
    one = connection(unanswered_bytes=100, ack_step_bytes=10)
    one.acknowledge(0)
    send(one, 1, 10, 10)
    assert full(one)
    one.acknowledge(0)
    assert full(one)
    one.acknowledge(4)
    assert not full(one)
    send(one, 11, 13, 10)
    assert not full(one)
    one.sent(10, 14)
    assert full(one)
    one.acknowledge(2)
    assert full(one)
    one.acknowledge(14)
    assert not full(one)


def test_a_pong_beyond_what_was_sent_answers_all_of_it():
    one = connection(unanswered_bytes=100)
    send(one, 1, 10, 10)
    one.acknowledge(2**53 - 1)
    send(one, 11, 19, 10)
    assert not full(one)
    one.sent(10, 20)
    assert full(one)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=60), st.integers(1, 50))
def test_what_counts_as_answered_is_never_more_than_what_was_and_lags_by_a_step_at_most(
    steps: list[tuple[int, bool]], step: int
):
    one = connection(unanswered_bytes=200, ack_step_bytes=step)
    one.acknowledge(0)
    sizes: list[int] = []
    answered = 0
    for size, answers in steps:
        sizes.append(size)
        one.sent(size, len(sizes))
        if answers:
            answered = max(answered, len(sizes) - size % 3)
            one.acknowledge(len(sizes) - size % 3)
        unanswered = sum(sizes[answered:])
        if unanswered >= 200:
            assert full(one)
        if unanswered + step + 40 < 200:
            assert not full(one)
