"""The log of one conversation: dense, bounded, and honest about what it no longer has."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chat.frames import Cursor, Log, LogData
from chat.log import Entry, Epochs, Gap, MemoryFrameLog, Numbered, Window
from tests.chat.wire import at_once, frames_of, inference, numbered


def batch(*sizes: int, after: int = 0, at_ms: int = 0) -> list[Numbered]:
    """Frames that claim to weigh `sizes` bytes."""
    out = []
    for seq, size in enumerate(sizes, after + 1):
        frame = Log(id=f"l{seq}", data=LogData(level="info", message="", fields={}))
        out.append(Numbered(frame, Entry(seq, at_ms, f"frame {seq}", size)))
    return out


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def log_with(
    *sizes: int, clock: Clock | None = None, window: Window | None = None
) -> MemoryFrameLog:
    log = MemoryFrameLog("conv", epoch=7, window=window, now_ms=clock or Clock())
    at_once(log.append(batch(*sizes)))
    return log


def read(log: MemoryFrameLog, seq: int, limit: int = 1000) -> list[int] | str:
    """The `seq`s after one, or why not."""
    page = at_once(log.read(Cursor(7, seq), limit=limit))
    return page.reason if isinstance(page, Gap) else [entry.seq for entry in page]


def test_an_empty_log_has_its_head_at_nought_and_that_resumes():
    log = log_with()
    assert log.head == Cursor(7, 0)
    assert read(log, 0) == []


def test_every_place_in_the_window_gives_exactly_what_came_after_it():
    log = log_with(*[1] * 10)
    for seq in range(11):
        assert read(log, seq) == list(range(seq + 1, 11))


def test_the_window_is_what_is_kept_of_what_came_after():
    log = log_with(*[1] * 10, window=Window(frames=4))
    for since, expected in ((0, [7, 8, 9, 10]), (8, [9, 10]), (10, []), (99, [])):
        assert [entry.seq for entry in at_once(log.window(since_seq=since))] == expected


def test_who_looks_at_the_head_as_at_each_tick_has_it_forget_what_is_too_old():
    clock = Clock()
    log = log_with(1, 1, window=Window(seconds=5), clock=clock)
    clock.ms = 5001
    assert log.read_now(log.head, limit=1) == ()
    assert log.kept == (0, 0)


def test_a_page_ends_at_its_limit_and_the_next_one_goes_on_from_there():
    log = log_with(*[1] * 10)
    assert read(log, 0, limit=4) == [1, 2, 3, 4]
    assert read(log, 4, limit=4) == [5, 6, 7, 8]
    assert read(log, 8, limit=4) == [9, 10]
    assert read(log, 9, limit=1) == [10]
    assert read(log, 10, limit=4) == []


def test_a_frame_is_kept_as_it_was_given():
    log = log_with()
    told = numbered(frames_of(inference(1, "a")))
    at_once(log.append(told))
    page = at_once(log.read(Cursor(7, 0), limit=100))
    assert list(page) == [entry for _, entry in told]


def test_the_oldest_frames_go_when_there_are_too_many():
    log = log_with(*[1] * 10, window=Window(frames=4))
    assert read(log, 6) == [7, 8, 9, 10]
    assert read(log, 5) == "window"
    assert log.kept == (4, 4)


def test_the_oldest_frames_go_when_they_weigh_too_much():
    log = log_with(10, 10, 10, 10, window=Window(bytes=25))
    assert read(log, 2) == [3, 4]
    assert read(log, 1) == "window"
    assert log.kept == (2, 20)


def test_the_oldest_frames_go_when_they_are_too_old_also_without_a_new_one():
    clock = Clock()
    log = log_with(1, 1, clock=clock, window=Window(seconds=10))
    clock.ms = 6_000
    at_once(log.append(batch(1, after=2, at_ms=6_000)))
    clock.ms = 10_000
    assert read(log, 0) == [1, 2, 3]
    clock.ms = 10_001
    assert read(log, 0) == "window"
    assert read(log, 2) == [3]
    clock.ms = 16_001
    assert read(log, 2) == "window"
    assert read(log, 3) == []


def test_a_frame_larger_than_the_window_is_in_the_snapshot_alone():
    log = log_with(1, 100, window=Window(bytes=50))
    assert log.head.seq == 2
    assert log.kept == (0, 0)
    assert read(log, 1) == "window"
    assert read(log, 2) == []
    assert at_once(log.snapshot()).version == 2


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        (Cursor(6, 3), "epoch"),
        (Cursor(8, 3), "epoch"),
        (Cursor(6, 0), "epoch"),
        (Cursor(7, 11), "ahead"),
        (Cursor(7, 10**15), "ahead"),
        (Cursor(7, 5), "window"),
        (Cursor(7, 0), "window"),
        (Cursor(7, 8, "0-0"), "diverged"),
        (Cursor(7, 10, "1764000000123-0"), "diverged"),
    ],
)
def test_a_cursor_that_cannot_be_proved_is_refused_and_told_why(cursor: Cursor, reason: str):
    log = log_with(*[1] * 10, window=Window(frames=4))
    assert at_once(log.read(cursor, limit=10)) == Gap(reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [0, 9, 11, 20])
def test_a_batch_that_does_not_follow_the_head_is_refused(after: int):
    log = log_with(*[1] * 10)
    with pytest.raises(AssertionError):
        at_once(log.append(batch(1, after=after)))
    assert log.head.seq == 10
    assert read(log, 8) == [9, 10]


def test_a_batch_with_a_hole_is_refused():
    log = log_with()
    first, _, third = batch(1, 1, 1)
    with pytest.raises(AssertionError):
        at_once(log.append([first, third]))


def test_the_active_inference_is_the_one_that_started_and_has_not_finished():
    log = log_with()
    told = numbered(frames_of(inference(1, "a")))
    seen = []
    for one in told:
        at_once(log.append([one]))
        seen.append(log.active_inference)
    assert seen == [None, *["i1"] * (len(told) - 2), None]


def test_the_snapshot_holds_also_what_the_window_has_lost():
    clock = Clock()
    clock.ms = 99
    log = log_with(clock=clock, window=Window(frames=1))
    at_once(log.append(numbered(frames_of([*inference(1, "a"), *inference(2, "b")]))))
    snapshot = at_once(log.snapshot())
    assert [entity.id for entity in snapshot.entities] == ["u1", "i1", "m1", "u2", "i2", "m2"]
    assert (snapshot.version, snapshot.cursor) == (log.head.seq, str(log.head))
    assert (snapshot.conv_id, snapshot.epoch, snapshot.server_time_ms) == ("conv", 7, 99)
    assert not snapshot.running


@given(st.lists(st.integers(0, 2**45), min_size=2))
def test_epochs_rise_whatever_the_clock_does(times: list[int]):
    clock = iter(times)
    epochs = Epochs(now_ms=lambda: next(clock))
    named = [epochs.next() for _ in times]
    assert all(a < b for a, b in pairwise(named))
    assert all(epoch >= now for epoch, now in zip(named, times, strict=True))


class LogMachine(RuleBasedStateMachine):
    """The log beside a list that forgets nothing and one number: the first frame still kept."""

    @initialize(
        frames=st.integers(1, 6), bytes=st.integers(1, 60), seconds=st.sampled_from([1, 5, 3600])
    )
    def start(self, frames: int, bytes: int, seconds: int) -> None:
        self.window = Window(frames=frames, bytes=bytes, seconds=seconds)
        self.clock = Clock()
        self.log = MemoryFrameLog("conv", epoch=7, window=self.window, now_ms=self.clock)
        self.all: list[Entry] = []
        self.first = 0

    def forget(self) -> None:
        def fits(kept: list[Entry]) -> bool:
            oldest = self.clock.ms - self.window.seconds * 1000
            return (
                len(kept) <= self.window.frames
                and sum(entry.size for entry in kept) <= self.window.bytes
                and all(entry.at_ms >= oldest for entry in kept)
            )

        while not fits(self.all[self.first :]):
            self.first += 1

    @rule(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
    def append(self, sizes: list[int]) -> None:
        added = batch(*sizes, after=len(self.all), at_ms=self.clock.ms)
        at_once(self.log.append(added))
        self.all += [entry for _, entry in added]
        self.forget()

    @rule(ms=st.integers(0, 3_000))
    def pass_time(self, ms: int) -> None:
        self.clock.ms += ms

    @rule(seq=st.integers(0, 60), limit=st.integers(1, 5))
    def read(self, seq: int, limit: int) -> None:
        page = at_once(self.log.read(Cursor(7, seq), limit=limit))
        self.forget()
        if seq > len(self.all):
            assert page == Gap("ahead")
        elif seq < self.first:
            assert page == Gap("window")
        else:
            assert list(page) == self.all[seq : seq + limit]

    @precondition(lambda self: hasattr(self, "log"))
    @invariant()
    def it_keeps_what_it_should(self) -> None:
        kept = self.all[self.first :]
        assert self.log.kept == (len(kept), sum(entry.size for entry in kept))
        assert self.log.head == Cursor(7, len(self.all))
        assert at_once(self.log.snapshot()).version == len(self.all)


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_any_order_of_appends_reads_and_time_agrees_with_a_list = LogMachine.TestCase
