"""Proves chat/guard.py: whoever may no longer be on a socket is sent away.

What Django announces, and when: tests/chat/test_signals.py. On real servers:
tests/border/test_hygiene.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from hypothesis import given
from hypothesis import strategies as st

from chat.guard import ACCESS_GROUP, Guard, Seat, digest, verdict
from chat.pool import Connection
from sessions_app.access import OWNERS_ACTIONS, Identity

pytestmark = pytest.mark.virtual

EVERY = 60.0
ANNA, BERT, STAFF = "user:1", "visitor:bert", "user:9"
READER = Identity(STAFF, frozenset({"transcript"}))


@dataclass(frozen=True)
class Conversation:
    owner: str


class LossyLayer(InMemoryChannelLayer):
    """Takes every message, and delivers none: what a layer may do at its capacity."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        pass


class BrokenLayer(InMemoryChannelLayer):
    """A layer whose server is down."""

    async def receive(self, channel: str) -> dict[str, Any]:
        raise ConnectionError("the layer is down")

    async def group_add(self, group: str, channel: str) -> None:
        raise ConnectionError("the layer is down")


class ShortLivedLayer(InMemoryChannelLayer):
    """A channel ends with a `receive` that was given up, as in channels_redis.pubsub."""

    async def receive(self, channel: str) -> dict[str, Any]:
        try:
            return await super().receive(channel)
        except asyncio.CancelledError:
            self.ended = channel
            raise

    async def group_add(self, group: str, channel: str) -> None:
        assert channel != getattr(self, "ended", None), "the channel has ended"
        await super().group_add(group, channel)


class Bench:
    """A guard whose database is in our hands."""

    def __init__(self, layer: InMemoryChannelLayer | None = None) -> None:
        self.layer = layer or InMemoryChannelLayer()
        self.sessions: dict[str, Identity] = {}
        self.conversations: dict[str, Conversation] = {}
        self.reads: list[set[str]] = []
        self.database_is_down = False
        self.guard = Guard(
            layer=self.layer, identities=self.identities, find=self.find, every=EVERY
        )

    async def identities(self, session_keys: Collection[str]) -> Mapping[str, Identity]:
        self.reads.append(set(session_keys))
        await asyncio.sleep(0.001)
        if self.database_is_down:
            raise ConnectionError("the database is down")
        return {key: self.sessions[key] for key in session_keys if key in self.sessions}

    async def find(self, conv_id: str) -> Conversation | None:
        if conv_id == "broken":
            raise ConnectionError("the app's store is down")
        return self.conversations.get(conv_id)

    def sit(self, session: str, identity: Identity, conv_id: str, owner: str) -> Seat:
        """A socket of that session in a conversation of that owner."""
        self.sessions[session] = identity
        self.conversations[conv_id] = Conversation(owner)
        assert identity.owner is not None
        seat = Seat(
            conv_id=conv_id,
            owner=identity.owner,
            is_guest=identity.owner != owner,
            session_key=session,
            connection=Connection(),
        )
        self.guard.admit(seat)
        return seat

    async def announce(self, **message: str | int) -> None:
        await self.layer.group_send(ACCESS_GROUP, {**message})


@asynccontextmanager
async def bench(layer: InMemoryChannelLayer | None = None) -> AsyncIterator[Bench]:
    made = Bench(layer)
    yield made
    await made.guard.aclose()


async def until_closed(seat: Seat) -> tuple[int, float]:
    """The code, and the seconds it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(10 * EVERY):
        while seat.connection.closing is None:
            await seat.connection.wait()
    return seat.connection.closing, loop.time() - began


@pytest.mark.parametrize("layer", [LossyLayer, BrokenLayer], ids=lambda layer: layer.__name__)
async def test_every_change_is_found_within_a_minute_whatever_the_layer_does(layer: type):
    async with bench(layer()) as b:
        annas = b.sit("s1", Identity(ANNA), "a", ANNA)
        berts = b.sit("s2", Identity(BERT), "b", BERT)
        moved = b.sit("s3", Identity("visitor:c"), "c", "visitor:c")
        staffs = b.sit("s4", READER, "a", ANNA)
        stays = b.sit("s5", READER, "a", ANNA)
        await asyncio.sleep(10)
        del b.sessions["s1"], b.sessions["s2"], b.sessions["s3"]
        b.conversations["c"] = Conversation(ANNA)
        b.sessions["s4"] = Identity(STAFF, frozenset({"view"}))
        for session in ("s1", "s2", "s3"):
            await b.announce(type="access.ended", session=digest(session), code=4501)
        found = [await until_closed(seat) for seat in (annas, berts, moved, staffs)]

        assert [code for code, _ in found] == [4501, 4501, 4010, 4503]
        assert all(seconds <= EVERY for _, seconds in found)
        assert stays.connection.closing is None


async def test_a_session_that_is_announced_to_be_over_is_closed_without_a_look():
    async with bench() as b:
        over = b.sit("s1", Identity(ANNA), "a", ANNA)
        elsewhere = b.sit("s2", Identity(ANNA), "a", ANNA)
        await asyncio.sleep(1)
        await b.announce(type="access.ended", session=digest("s1"), code=4501)
        code, seconds = await until_closed(over)

        assert (code, seconds) == (4501, 0)
        assert b.reads == []
        assert elsewhere.connection.closing is None


async def test_what_is_announced_in_one_process_is_heard_in_every_other():
    layer = InMemoryChannelLayer()
    async with bench(layer) as one, bench(layer) as another:
        here = one.sit("s1", Identity(ANNA), "a", ANNA)
        there = another.sit("s1", Identity(ANNA), "a", ANNA)
        await asyncio.sleep(1)
        await one.announce(type="access.ended", session=digest("s1"), code=4501)

        assert [await until_closed(seat) for seat in (here, there)] == [(4501, 0), (4501, 0)]


async def test_an_account_that_is_announced_to_have_changed_is_looked_at_at_once():
    async with bench() as b:
        own = [b.sit(f"s{n}", Identity(ANNA), f"a{n}", ANNA) for n in range(3)]
        b.sit("other", Identity(BERT), "b", BERT)
        await asyncio.sleep(1)
        del b.sessions["s0"], b.sessions["s1"]
        await b.announce(type="access.changed", owner=digest(ANNA))
        codes = [await until_closed(seat) for seat in own[:2]]

        assert all(code == 4501 and seconds < 1 for code, seconds in codes)
        assert own[2].connection.closing is None
        assert b.reads == [{"s0", "s1", "s2"}]


async def test_changed_rights_are_looked_at_at_once_for_guests_alone():
    async with bench() as b:
        guest = b.sit("s1", READER, "a", ANNA)
        own = b.sit("s1", READER, "mine", STAFF)
        b.sit("s2", Identity(ANNA), "a", ANNA)
        await asyncio.sleep(1)
        b.sessions["s1"] = Identity(STAFF)
        await b.announce(type="access.changed")
        code, seconds = await until_closed(guest)

        assert code == 4503
        assert seconds < 1
        assert b.reads == [{"s1"}]
        assert own.connection.closing is None


async def test_everybody_is_asked_about_in_few_reads_and_stays_for_hours():
    async with bench() as b:
        seats = [b.sit(f"s{n % 120}", Identity(ANNA), "a", ANNA) for n in range(250)]
        await asyncio.sleep(EVERY * 60 + 1)

        assert len(b.reads) == 60 * 3
        assert all(len(read) <= Guard.BATCH for read in b.reads)
        assert all(seat.connection.closing is None for seat in seats)


async def test_without_a_database_everybody_stays_until_it_is_back(caplog):
    async with bench() as b:
        seat = b.sit("s1", Identity(ANNA), "a", ANNA)
        del b.sessions["s1"]
        b.database_is_down = True
        await asyncio.sleep(10 * EVERY)
        assert seat.connection.closing is None
        b.database_is_down = False

        assert (await until_closed(seat))[0] == 4501
    assert "cannot be read" in caplog.text


async def test_a_conversation_that_cannot_be_found_keeps_no_other_from_being_checked():
    async with bench() as b:
        stays = b.sit("s0", Identity(ANNA), "broken", ANNA)
        leave = [b.sit(f"s{n}", Identity(ANNA), "broken", ANNA) for n in range(1, 4)]
        leave.append(b.sit("s4", Identity(ANNA), "a", ANNA))
        for seat in leave:
            del b.sessions[seat.session_key]

        assert [(await until_closed(seat))[0] for seat in leave] == [4501] * 4
        assert stays.connection.closing is None


async def test_a_membership_that_was_lost_is_taken_up_again():
    async with bench() as b:
        seat = b.sit("s1", Identity(ANNA), "a", ANNA)
        await asyncio.sleep(1)
        b.layer.groups.clear()
        await asyncio.sleep(2 * EVERY)
        await b.announce(type="access.ended", session=digest("s1"), code=4501)

        assert await until_closed(seat) == (4501, 0)


async def test_after_minutes_of_silence_it_hears_as_at_its_start():
    async with bench(ShortLivedLayer()) as b:
        seat = b.sit("s1", Identity(ANNA), "a", ANNA)
        await asyncio.sleep(5.5 * EVERY)
        await b.announce(type="access.ended", session=digest("s1"), code=4501)

        assert await until_closed(seat) == (4501, 0)


async def test_a_seat_that_was_released_is_not_looked_at():
    async with bench() as b:
        seat = b.sit("s1", Identity(ANNA), "a", ANNA)
        b.guard.release(seat)
        b.guard.release(seat)
        del b.sessions["s1"]
        await asyncio.sleep(2 * EVERY)

        assert b.reads == []
        assert seat.connection.closing is None


async def test_its_tasks_begin_with_the_first_seat_and_end_when_it_is_closed():
    def tasks() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()}

    b = Bench()
    before = tasks()
    b.sit("s1", Identity(ANNA), "a", ANNA)
    assert tasks() - before == {"guard", "guard-listener"}
    await b.guard.aclose()
    await b.guard.aclose()

    assert tasks() == before
    assert b.layer.groups == {}


@given(
    seated_as=st.sampled_from([ANNA, BERT, STAFF]),
    owner=st.sampled_from([ANNA, BERT, STAFF]),
    owner_now=st.sampled_from([ANNA, BERT, STAFF, None]),
    session_now=st.sampled_from([ANNA, BERT, STAFF, None]),
    anywhere=st.sets(st.sampled_from(sorted(OWNERS_ACTIONS))),
)
def test_a_seat_stays_exactly_where_a_new_socket_would_be_let_in_as_the_same(
    seated_as: str, owner: str, owner_now: str | None, session_now: str | None, anywhere: Any
):
    seat = Seat(
        conv_id="a",
        owner=seated_as,
        is_guest=seated_as != owner,
        session_key="s",
        connection=Connection(),
    )
    conversation = None if owner_now is None else Conversation(owner_now)
    identity = Identity(session_now, frozenset(anywhere))
    code = verdict(seat, identity, conversation)

    is_same = session_now == seated_as
    may_enter = owner_now in (None, session_now) or "transcript" in anywhere
    was_moved = not seat.is_guest and owner_now not in (None, seated_as)
    assert (code is None) == (is_same and may_enter and not was_moved)
    assert code in (None, 4010, 4501, 4503)
