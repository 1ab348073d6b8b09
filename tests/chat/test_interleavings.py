"""Writer, follower, pumps and visitors in any order: everybody sees a prefix, once and in order.

On a loop that asks who goes next at every await. Small scenes in every order in which one or two
ready calls are passed over, and with everybody held back everywhere; larger ones in orders that
Hypothesis makes. Then what guards the law is taken away, and the same scenes must fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.follower import StreamFollower
from chat.frames import Cursor
from chat.log import Entry, Gap
from chat.pool import Connection, Flow, InPlace
from chat.pump import _Socket
from chat.wire import Wire
from sessions_app.inference.events import Event, Log
from tests.chat.scene import AtHandLog, RememberingLog, Scene, Step
from tests.chat.wire import conversations, inference
from tests.schedule import Broken, every_hold, every_order, in_order, some_orders


def lines(number: int) -> list[Event]:
    return [Log(message=f"line {n}") for n in range(number)]


# Small scenes, in every order


def joining() -> Scene:
    """One joins while two batches are written."""
    return Scene(lines(2), [("publish", 1), ("publish", 1)], [[("join", 0)]])


def resuming() -> Scene:
    """One drops while text streams, and comes back with what it has."""
    return Scene(
        inference(1, "a", "b")[:5],
        [("publish", 3), ("flush", 0), ("publish", 2)],
        [[("join", 0), ("turns", 4), ("drop", 0), ("join", 0)]],
    )


def lagging() -> Scene:
    """One does not read for a while and its outbox runs over; another sees everything at once."""
    return Scene(
        lines(7),
        [("publish", 1), ("flush", 0), *[("publish", 2), ("flush", 0)] * 3],
        [
            [("join", 0), ("turns", 6), ("stall", 0), ("turns", 9), ("release", 0)],
            [("join", 0)],
        ],
        flow=Flow(outbox_frames=2),
    )


def arriving() -> Scene:
    """One comes with nothing while the last frame of all is written."""
    return Scene([], [], [[("join", 0)], [("turns", 3), ("join", 0)]])


def faltering() -> Scene:
    """One stops reading for a moment, again and again, while a frame at a time is written."""
    pauses: list[Step] = [("stall", 0), ("turns", 3), ("release", 0), ("turns", 1)]
    return Scene(lines(9), [("publish", 1)] * 9, [[("join", 0), ("turns", 5), *pauses * 4]])


SMALL = [arriving, joining, resuming, lagging]


@pytest.mark.parametrize(("scene", "delays", "more_than"), [
    (joining, 2, 800), (resuming, 1, 60), (lagging, 1, 100), (arriving, 1, 40),
])  # fmt: skip
def test_in_every_order_everybody_sees_a_contiguous_prefix_once_in_order(
    scene: Callable[[], Scene], delays: int, more_than: int
):
    assert every_order(scene, delays=delays) > more_than


@pytest.mark.parametrize("scene", SMALL)
def test_the_same_when_anyone_is_held_back_anywhere(scene: Callable[[], Scene]):
    for calls in (4, 8):
        assert every_hold(scene, calls=calls) > 40


@pytest.mark.parametrize("scene", SMALL)
def test_the_same_in_orders_thrown_by_a_dice(scene: Callable[[], Scene]):
    some_orders(scene, number=60)


def at_hand(
    scene: Callable[[], Scene], *, near: bool = False, spacing: float = 0
) -> Callable[[], Scene]:
    """The scene over a log that answers the follower at once, as that of one process does.

    `near`: and with sockets that take frames in place, as those of our servers do.
    """

    def made() -> Scene:
        nearer = scene()
        nearer.log_type, nearer.near, nearer.spacing = AtHandLog, near, spacing
        return nearer

    return made


@pytest.mark.parametrize(("near", "spacing"), [(False, 0), (True, 0), (True, 0.001)])
@pytest.mark.parametrize("scene", [*SMALL, faltering])
def test_the_same_where_what_is_new_is_at_hand(
    scene: Callable[[], Scene], near: bool, spacing: float
):
    assert every_hold(at_hand(scene, near=near, spacing=spacing), calls=8) > 20
    some_orders(at_hand(scene, near=near, spacing=spacing), number=60)


# The same scenes without what guards the law


def takes_whatever_is_offered(
    self: Connection,
    entries: Sequence[Entry],
    wire: Wire | None = None,
    *,
    after: Cursor | None = None,
) -> bool:
    """Connection.offer that does not look whether the batch continues where it stands."""
    assert self.cursor is not None
    size = sum(entry.size for entry in entries)
    if (
        len(self._outbox) + len(entries) > self.flow.outbox_frames
        or self._outbox_bytes + size > self.flow.outbox_bytes
    ):
        self.live = False
        self._wake.set()
        return False
    self._outbox.extend(entries)
    self._outbox_bytes += size
    self._move_to(entries[-1])
    self._wake.set()
    return True


def holds_however_much(
    self: Connection,
    entries: Sequence[Entry],
    wire: Wire | None = None,
    *,
    after: Cursor | None = None,
) -> bool:
    """Connection.offer without a bound."""
    assert self.cursor is not None
    position = self.cursor.seq
    entries = [entry for entry in entries if entry.seq > position]
    if entries:
        self._outbox.extend(entries)
        self._move_to(entries[-1])
        self._wake.set()
    return True


offer = Connection.offer


def overtakes_what_waits(
    self: Connection,
    entries: Sequence[Entry],
    wire: Wire | None = None,
    *,
    after: Cursor | None = None,
) -> bool:
    """Connection.offer that sends in place also where something waits in the outbox."""
    waiting, self._outbox = self._outbox, []
    taken = offer(self, entries, wire, after=after)
    self._outbox[:0] = waiting
    return taken


async def rests_for_ever(self: Connection, in_place: InPlace | None) -> None:
    """Connection.rest after which things go out in place also while the pump sends."""
    self._in_place = in_place
    await self._wake.wait()


def always_level(self: StreamFollower, connection: Connection) -> bool:
    """StreamFollower.level that does not ask what it has offered meanwhile."""
    connection.live = True
    return True


async def live_before_it_has_read(self: _Socket) -> None:
    """catch_up that registers first and replays afterwards."""
    connection = self._connection
    assert connection.cursor is not None
    connection.live = True
    page = await self._log.read(connection.cursor, limit=self._follower.PAGE)
    if isinstance(page, Gap):
        await self.snapshot("slow" if page.reason == "window" else page.reason)
    elif page:
        connection.replay(page)
        await self.send_entries(page)


async def looks_away_after_it_has_read(self: _Socket) -> None:
    """catch_up that takes what it read a moment ago for the end, whatever was offered since."""
    connection = self._connection
    assert connection.cursor is not None
    page = await self._log.read(connection.cursor, limit=self._follower.PAGE)
    if isinstance(page, Gap):
        await self.snapshot("slow" if page.reason == "window" else page.reason)
    elif page:
        connection.replay(page)
        await self.send_entries(page)
    else:
        await asyncio.sleep(0)
        connection.live = True


@pytest.mark.parametrize(("guarded", "name", "broken"), [
    (Connection, "offer", takes_whatever_is_offered),
    (Connection, "offer", holds_however_much),
    (Connection, "offer", overtakes_what_waits),
    (Connection, "rest", rests_for_ever),
    (StreamFollower, "level", always_level),
    (_Socket, "catch_up", live_before_it_has_read),
    (_Socket, "catch_up", looks_away_after_it_has_read),
])  # fmt: skip
def test_without_its_guard_the_law_breaks_in_one_of_these_orders(
    guarded: type, name: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guarded, name, broken)
    with pytest.raises(Broken):
        play_small_scenes()


def play_small_scenes() -> None:
    for scene in SMALL:
        every_hold(scene, calls=8)
        some_orders(scene, number=20)
    some_orders(at_hand(faltering, near=True), number=200)


# Larger ones, in any order

turns = st.tuples(st.just("turns"), st.integers(1, 5))
seconds = st.tuples(st.just("seconds"), st.integers(1, 4))
writing: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4)),
        st.tuples(st.just("publish"), st.integers(1, 20)),
        st.tuples(st.just("flush"), st.just(0)),
        turns,
        seconds,
    ),
    max_size=12,
)
visiting: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["join", "join", "drop", "stall", "release", "pong"]), st.just(0)
        ),
        st.tuples(st.just("join at"), st.integers(0, 30)),
        turns,
        seconds,
    ),
    max_size=10,
)
orders = st.binary(max_size=600)


@settings(max_examples=120, deadline=None)
@given(
    conversations,
    writing,
    st.lists(visiting, min_size=1, max_size=3),
    orders,
    st.sampled_from([RememberingLog, AtHandLog]),
    st.booleans(),
    st.sampled_from([0, 0.001]),
)
def test_whoever_comes_goes_resumes_or_lags_whenever_sees_a_prefix_once_in_order(
    told: list[Event],
    writer: list[Step],
    visitors: list[list[Step]],
    order: bytes,
    log: type[RememberingLog],
    near: bool,
    spacing: float,
):
    in_order(Scene(told, writer, visitors, log=log, near=near, spacing=spacing), order)


# A bell that nobody hears

RINGS = ["follower", "connection"]


def rung(ring: str) -> int:
    """How many bells of that kind ring in a story where nothing is lost."""
    scene = busy(ring)
    in_order(scene, ())
    return scene.bells.rung


def busy(ring: str, lost: set[int] | None = frozenset()) -> Scene:  # type: ignore[assignment]
    return Scene(
        inference(1, "a", "b", "c") + lines(12),
        [("publish", 3), ("flush", 0), ("turns", 9), *[("publish", 2), ("flush", 0)] * 6],
        [
            [("join", 0)],
            [("join", 0), ("turns", 6), ("stall", 0), ("turns", 12), ("release", 0)],
            [("turns", 8), ("join at", 2), ("turns", 4), ("drop", 0), ("join", 0)],
        ],
        ring=ring,
        lost=lost,
    )


@pytest.mark.parametrize("ring", RINGS)
def test_a_bell_that_is_lost_wherever_it_rings_costs_a_tick_at_most(ring: str):
    number = rung(ring)
    assert number > 5
    for lost in range(1, number + 1):
        in_order(busy(ring, {lost}), ())


def test_all_bells_lost_cost_a_tick_at_most():
    in_order(busy("follower", None), ())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RINGS), st.sets(st.integers(1, 25)), orders)
def test_whichever_bells_are_lost_in_whatever_order_it_costs_a_tick_at_most(
    ring: str, lost: set[int], order: bytes
):
    in_order(busy(ring, lost), order)
