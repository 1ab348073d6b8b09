"""The list as an address asks for it, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.desk.listing import PAGE_ROWS, STATES, Listing, listing
from chat.desk.rows import Row
from chat.desk.words import duration, owner_words, seconds, state_words
from chat.streams import StreamInfo
from sessions_app.values import (
    Ending,
    Idle,
    LiveSession,
    Paused,
    Running,
    SessionState,
    Stopping,
    ToolInfo,
    Unloaded,
    WaitingForTools,
)

IDLE = Idle(since_ms=0)
BUSY = Running(inference_id="i", since_ms=0, model_call=1, answering=False, silent_since_ms=0)
PAUSED = Paused(inference_id="i", since_ms=0, until_ms=90_000)


def row(conv_id: str = "conv", *, state: SessionState = IDLE, **fields: Any) -> Row:
    stream = {name: fields.pop(name) for name in ("sockets", "bytes") if name in fields}
    session = LiveSession(
        conv_id=conv_id,
        owner="user:1",
        profile="default",
        model="demo",
        fingerprint="f",
        state=state,
        running_since_ms=None,
        queue_depth=0,
        step_mode=False,
        turns=0,
        errors=0,
        last_error=None,
        created_ms=0,
        last_activity_ms=0,
    )
    return Row(session=msgspec.structs.replace(session, **fields), stream=StreamInfo(**stream))


def shown(rows: list[Row], **params: str) -> Listing:
    names = {"anna": frozenset({"user:1"})}
    return listing(
        rows,
        params,
        profiles=["default", "agent"],
        owners_named=lambda word: names.get(word, frozenset()),
    )


def ids(found: Listing) -> list[str]:
    return [each.session.conv_id for each in found.rows]


def test_what_needs_a_person_comes_first_and_the_longest_wait_before_the_shorter():
    later = msgspec.structs.replace(PAUSED, since_ms=5)
    rows = [row("idle"), row("busy", state=BUSY), row("b", state=later), row("a", state=PAUSED)]
    assert ids(shown(rows)) == ["a", "b", "busy", "idle"]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("queue", "plain"),
        ("-queue", "full"),
        ("-errors", "full"),
        ("-sockets", "full"),
        ("-window", "full"),
        ("age", "plain"),
        ("-active", "full"),
        ("owner", "plain"),
        ("profile", "full"),
    ],
)
def test_every_column_sorts_both_ways(order: str, first: str):
    full = row(
        "full",
        owner="visitor:2",
        profile="agent",
        queue_depth=2,
        errors=1,
        sockets=3,
        bytes=9,
        created_ms=5,
        last_activity_ms=7,
    )
    plain = row("plain", created_ms=9)
    assert ids(shown([full, plain], o=order))[0] == first
    back = order.removeprefix("-") if order.startswith("-") else f"-{order}"
    assert ids(shown([full, plain], o=back))[0] != first


def test_filters_count_what_they_would_leave():
    rows = [
        row("a"),
        row("b", state=BUSY, queue_depth=1),
        row("c", state=PAUSED, profile="agent"),
        row("d", errors=3),
    ]
    found = shown(rows, profile="default")
    [by_state, by_profile] = found.filters
    counts = {choice.display: choice.count for choice in by_state.choices}
    assert counts["All"] == 3
    assert (counts["Running"], counts["Paused"], counts["Idle"]) == (1, 0, 2)
    assert (counts["Queued prompts"], counts["With errors"]) == (1, 1)
    assert {choice.display: choice.count for choice in by_profile.choices} == {
        "All": 4,
        "default": 3,
        "agent": 1,
    }
    assert [c.display for c in by_profile.choices if c.selected] == ["default"]
    assert ids(shown(rows, state="queued")) == ["b"]
    assert ids(shown(rows, state="errors")) == ["d"]
    assert ids(shown(rows, state="paused", profile="default")) == []


def test_every_word_of_a_search_must_be_found():
    rows = [row("abc-1"), row("abc-2", owner="visitor:77"), row("x", owner="visitor:9")]
    assert ids(shown(rows, q="ABC")) == ["abc-1", "abc-2"]
    assert ids(shown(rows, q="abc visitor:77")) == ["abc-2"]
    assert ids(shown(rows, q="anna")) == ["abc-1"]


def test_a_choice_keeps_the_rest_of_the_address_and_begins_at_the_first_page():
    rows = [row(f"c{number:04d}") for number in range(3 * PAGE_ROWS)]
    found = shown(rows, q="c0", o="-age", p="2")
    assert (found.found, found.total, found.page, len(found.pages)) == (300, 300, 2, 3)
    busy = next(c for c in found.filters[0].choices if c.display == "Running")
    assert busy.query_string == "?q=c0&o=-age&state=running"
    assert found.query_string == "?q=c0&o=-age&p=2"
    assert found.pages[2] == (3, "?q=c0&o=-age&p=3")
    assert dict(found.hidden) == {"o": "-age"}


junk = st.text(max_size=12)


@given(st.dictionaries(st.sampled_from(["q", "state", "profile", "o", "p", "x"]), junk))
def test_no_address_breaks_the_list(params: Mapping[str, str]):
    found = listing(
        [row("a"), row("b", state=BUSY)],
        params,
        profiles=[],
        owners_named=lambda word: frozenset(),
    )
    assert found.total == 2
    assert len(found.rows) <= 2


@given(st.lists(st.integers(0, 5), min_size=0, max_size=250))
def test_pages_show_every_row_once(depths: list[int]):
    rows = [row(f"c{number}", queue_depth=depth) for number, depth in enumerate(depths)]
    seen: list[str] = []
    for number in range(1, len(shown(rows).pages) + 1):
        seen += ids(shown(rows, o="-queue", p=str(number)))
    assert sorted(seen) == sorted(each.session.conv_id for each in rows)


def test_every_state_has_words_and_a_filter():
    tools = (ToolInfo(call_id="c", name="calc", since_ms=0),)
    told = {
        state.kind: " ".join(state_words(state, 42_000)[1:3])
        for state in (
            IDLE,
            BUSY,
            msgspec.structs.replace(BUSY, answering=True, silent_since_ms=40_000),
            msgspec.structs.replace(BUSY, model_call=0, silent_since_ms=41_000),
            WaitingForTools(inference_id="i", since_ms=0, tools=tools),
            PAUSED,
            Stopping(inference_id="i", since_ms=0),
            Ending(inference_id="i", since_ms=0),
            Unloaded(since_ms=0),
        )
    }
    assert told == {
        "idle": "Idle for 42 s",
        "running": "Starting for 42 s",
        "tool": "Waiting for calc for 42 s",
        "paused": "Paused until 00:01:30, 48 s left",
        "stopping": "Stopping asked to 42 s ago",
        "ending": "Ending its turn is being kept, for 42 s",
        "unloaded": "Unloaded last used 42 s ago",
    }
    assert state_words(BUSY, 42_000).detail == "for 42 s, silent for 42 s"
    assert set(told) - {"unloaded"} == set(STATES)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "0 ms"),
        (850, "850 ms"),
        (4_240, "4.2 s"),
        (42_900, "42 s"),
        (60_000, "1 min"),
        (192_000, "3 min 12 s"),
        (7_500_000, "2 h 5 min"),
        (273_600_000, "3 d 4 h"),
    ],
)
def test_durations_are_said_in_their_two_largest_units(ms: int, text: str):
    assert duration(ms) == text


def test_what_is_shown_anew_every_second_says_whole_ones():
    assert [seconds(ms) for ms in (-1, 0, 999, 9_999, 61_500)] == [
        "0 s",
        "0 s",
        "0 s",
        "9 s",
        "1 min 1 s",
    ]


def test_owners_are_named_as_people_know_them():
    names = {"user:1": "anna"}
    told = [owner_words(owner, names) for owner in ("user:1", "user:2", "visitor:0011223344")]
    assert told == ["anna", "user 2", "visitor 00112233"]
