"""A whole ChatConsumer at its ASGI border, its client, its server and operators, in any order.

As test_interleavings.py plays writer, follower and pumps, this plays receive, dispatch, pump, close
and the end of each around them. Then what keeps them apart is taken away, and a scene must fail.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.consumers import ChatConsumer
from chat.frames import connection_frame
from chat.pool import Flow
from sessions_app.inference.events import Event, Log
from tests.chat.border_scene import CONV, BorderScene
from tests.chat.scene import Step
from tests.chat.wire import conversations, inference
from tests.schedule import Broken, every_hold, every_order, in_order, some_orders


def lines(number: int) -> list[Event]:
    return [Log(message=f"line {n}") for n in range(number)]


UNTIL_ALL_WAIT = ("seconds", 1)


def talking() -> BorderScene:
    """One pings and talks nonsense while frames come."""
    return BorderScene(
        lines(3),
        [UNTIL_ALL_WAIT, ("publish", 1), ("publish", 1), ("publish", 1)],
        [[("join", 0), UNTIL_ALL_WAIT, ("ping", 0), ("nonsense", 0), ("ping", 0), ("pong", 0)]],
    )


def coming_and_going() -> BorderScene:
    """One is gone while it is let in, comes back with what it has, and is killed."""
    return BorderScene(
        inference(1, "a", "b"),
        [("publish", 3), UNTIL_ALL_WAIT, ("publish", 3)],
        [
            [("join", 0), ("turns", 3), ("drop", 0), ("join", 0), UNTIL_ALL_WAIT, ("kill", 0)],
            [("join", 0), UNTIL_ALL_WAIT, ("drop", 0), ("join", 0)],
        ],
        raises=True,
    )


def asked_to_go() -> BorderScene:
    """Operators close all sockets, then the process asks them to leave while one lags."""
    return BorderScene(
        lines(6),
        [UNTIL_ALL_WAIT, ("publish", 2), ("publish", 2), ("publish", 2)],
        [
            [("join", 0), UNTIL_ALL_WAIT, ("stall", 0), ("turns", 6), ("release", 0)],
            [("join", 0), UNTIL_ALL_WAIT, ("close", 4010), ("turns", 4), ("leave", 0)],
        ],
        flow=Flow(outbox_frames=2),
    )


SMALL = [talking, coming_and_going, asked_to_go]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of sockets open and close."""
    caplog.set_level(logging.WARNING, "chat.consumers")


def near(scene: Callable[[], BorderScene]) -> Callable[[], BorderScene]:
    """The scene on a server of ours, which takes frames in place."""

    def made() -> BorderScene:
        nearer = scene()
        nearer.near = True
        return nearer

    return made


@pytest.mark.parametrize("scene", [*SMALL, *map(near, SMALL)])
def test_in_orders_thrown_by_a_dice_sockets_keep_the_law(scene: Callable[[], BorderScene]):
    some_orders(scene, number=40)


def test_the_same_when_anyone_is_held_back_anywhere():
    assert every_hold(talking, calls=8) > 80


@pytest.mark.slow
@pytest.mark.parametrize("scene", [*SMALL, *map(near, SMALL)])
def test_the_same_in_every_order_with_one_passed_over(scene: Callable[[], BorderScene]):
    assert every_order(scene, delays=1) > 60
    assert every_hold(scene, calls=8) > 80


# The same scenes without what keeps the parts of a socket apart


async def answers_by_itself(
    self: ChatConsumer, text_data: str | None = None, bytes_data: bytes | None = None
) -> None:
    """receive that sends, beside the pump."""
    if self._delivery is not None and '"ws.ping"' in (text_data or ""):
        data = {"nonce": json.loads(text_data or "")["nonce"]}
        await self._send_text(connection_frame("ws.pong", CONV, data))


async def closes_by_itself(self: ChatConsumer, message: dict[str, Any]) -> None:
    """control_close that sends the close, beside the pump."""
    await self.close(message["code"])


async def trusts_its_server(self: ChatConsumer, scope: Any, receive: Any, send: Any) -> None:
    """__call__ that is told of every end by a disconnect."""
    await AsyncWebsocketConsumer.__call__(self, scope, receive, send)


def gives_up_twice(self: ChatConsumer) -> None:
    """_give_up_place that does not ask whether it did."""
    if self._counted is not None:
        self._hub.limits.leave(*self._counted)
    if self._seat is not None:
        self._hub.guard.release(self._seat)
    if self._follower is not None:
        self._follower.leave(self._connection)


def keeps_its_seat(self: ChatConsumer) -> None:
    """_give_up_place that forgets the guard."""
    counted, self._counted = self._counted, None
    if counted is not None:
        self._hub.limits.leave(*counted)
    follower, self._follower = self._follower, None
    if follower is not None:
        follower.leave(self._connection)


@pytest.mark.parametrize(("name", "broken"), [
    ("receive", answers_by_itself),
    ("control_close", closes_by_itself),
    ("__call__", trusts_its_server),
    ("_give_up_place", gives_up_twice),
    ("_give_up_place", keeps_its_seat),
])  # fmt: skip
def test_without_what_keeps_it_together_a_socket_breaks_the_law_in_one_of_these_orders(
    name: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ChatConsumer, name, broken)
    with pytest.raises(Broken):
        play_small_scenes()


def play_small_scenes() -> None:
    for scene in SMALL:
        some_orders(scene, number=20)


# Larger ones, in any order

turns = st.tuples(st.just("turns"), st.integers(1, 5))
seconds = st.tuples(st.just("seconds"), st.integers(1, 4))
writing: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(st.tuples(st.just("publish"), st.integers(1, 20)), turns, seconds), max_size=8
)
visiting: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["join", "join", "drop", "kill", "stall", "release"]), st.just(0)
        ),
        st.tuples(st.sampled_from(["ping", "pong", "nonsense", "leave"]), st.just(0)),
        st.tuples(st.just("close"), st.sampled_from([4010, 4509])),
        st.tuples(st.just("join at"), st.integers(0, 30)),
        turns,
        seconds,
        seconds,
    ),
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(
    conversations,
    writing,
    st.lists(visiting, min_size=1, max_size=3),
    st.binary(max_size=600),
    st.booleans(),
    st.booleans(),
)
def test_whatever_becomes_of_a_socket_whenever_it_keeps_the_law_and_leaves_nothing(
    told: list[Event],
    writer: list[Step],
    visitors: list[list[Step]],
    order: bytes,
    raises: bool,
    near: bool,
):
    in_order(BorderScene(told, writer, visitors, raises=raises, near=near), order)
