"""The list of live sessions as an address asks for it: searched, filtered, sorted, paged. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .rows import Row
from .words import attention

PAGE_ROWS = 100
DEFAULT_ORDER = "state"

STATES = {
    "paused": "Paused",
    "stopping": "Stopping",
    "ending": "Ending",
    "tool": "Waiting for a tool",
    "running": "Running",
    "idle": "Idle",
}
ALSO = {"queued": "Queued prompts", "errors": "With errors"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to filter, with how many rows it would leave."""

    display: str
    query_string: str
    selected: bool
    count: int


@dataclass(frozen=True, slots=True)
class Filter:
    title: str
    choices: Sequence[Choice]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head: where a click on it leads, and how the list is sorted by it now."""

    name: str
    text: str
    query_string: str
    sorted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of rows, and everything around it. `total` counts all rows, `found` those left."""

    rows: Sequence[Row]
    total: int
    found: int
    page: int
    pages: Sequence[tuple[int, str]]
    query: str
    hidden: Mapping[str, str]
    columns: Sequence[Column]
    filters: Sequence[Filter]
    is_filtered: bool
    query_string: str


_KEYS: Mapping[str, tuple[str, Callable[[Row], Any]]] = {
    "conversation": ("Conversation", lambda row: row.session.conv_id),
    "state": ("State", lambda row: attention(row.session)),
    "queue": ("Queue", lambda row: row.session.queue_depth),
    "errors": ("Errors", lambda row: row.session.errors),
    "owner": ("Owner", lambda row: row.session.owner),
    "profile": ("Profile", lambda row: (row.session.profile, row.session.model)),
    "active": ("Active", lambda row: row.session.last_activity_ms),
    "age": ("Age", lambda row: -row.session.created_ms),
    "sockets": ("Sockets", lambda row: row.stream.sockets),
    "head": ("Head", lambda row: row.stream.head_seq),
    "window": ("Window", lambda row: row.stream.bytes),
}


def listing(
    rows: Sequence[Row],
    params: Mapping[str, str],
    *,
    profiles: Sequence[str],
    owners_named: Callable[[str], frozenset[str]],
) -> Listing:
    """What `params` (q, state, profile, o, p) leave of the rows; what makes no sense is ignored.

    `owners_named` finds the owners whose user name holds a word.
    """
    asked = {name: params.get(name, "").strip() for name in ("q", "state", "profile", "o")}
    if asked["state"] not in {**STATES, **ALSO}:
        asked["state"] = ""
    if asked["o"].removeprefix("-") not in _KEYS:
        asked["o"] = ""
    matching = _searched(rows, asked["q"].lower().split(), owners_named)
    of_state = [row for row in matching if _has_state(row, asked["state"])]
    of_profile = [row for row in matching if _has_profile(row, asked["profile"])]
    found = _sorted([row for row in of_state if _has_profile(row, asked["profile"])], asked["o"])
    last = max(1, -(-len(found) // PAGE_ROWS))
    page = min(last, _page(params.get("p", "")))
    given = {name: value for name, value in asked.items() if value}
    return Listing(
        rows=found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
        total=len(rows),
        found=len(found),
        page=page,
        pages=[(number, _address(given, p=str(number))) for number in range(1, last + 1)],
        query=asked["q"],
        hidden={name: value for name, value in given.items() if name != "q"},
        columns=[_column(name, given) for name in _KEYS],
        filters=[
            _state_filter(of_profile, given),
            _filter("profile", Counter(row.session.profile for row in of_state), profiles, given),
        ],
        is_filtered=bool(given.keys() & {"q", "state", "profile"}),
        query_string=_address(given, p=str(page) if page > 1 else ""),
    )


def _searched(
    rows: Sequence[Row], words: Sequence[str], owners_named: Callable[[str], frozenset[str]]
) -> Sequence[Row]:
    for word in words:
        owners = owners_named(word)
        rows = [
            row
            for row in rows
            if word in row.session.conv_id.lower()
            or word in row.session.owner.lower()
            or row.session.owner in owners
        ]
    return rows


def _has_state(row: Row, state: str) -> bool:
    session = row.session
    match state:
        case "queued":
            return session.queue_depth > 0
        case "errors":
            return session.errors > 0
        case _:
            return not state or session.state.kind == state


def _has_profile(row: Row, profile: str) -> bool:
    return not profile or row.session.profile == profile


def _sorted(rows: Sequence[Row], order: str) -> Sequence[Row]:
    _, key = _KEYS[order.removeprefix("-") or DEFAULT_ORDER]
    # By id first: rows that are alike keep their places from one refresh to the next.
    by_id = sorted(rows, key=lambda row: row.session.conv_id)
    return sorted(by_id, key=key, reverse=order.startswith("-"))


def _column(name: str, given: Mapping[str, str]) -> Column:
    order = given.get("o", DEFAULT_ORDER)
    is_sorted = order.removeprefix("-") == name
    descending = order.startswith("-")
    next_order = f"-{name}" if is_sorted and not descending else name
    return Column(
        name=name,
        text=_KEYS[name][0],
        query_string=_address(given, o=next_order),
        sorted="" if not is_sorted else "descending" if descending else "ascending",
    )


def _state_filter(rows: Sequence[Row], given: Mapping[str, str]) -> Filter:
    counts = Counter(row.session.state.kind for row in rows)
    counts["queued"] = sum(row.session.queue_depth > 0 for row in rows)
    counts["errors"] = sum(row.session.errors > 0 for row in rows)
    names = {**STATES, **ALSO}
    everything = Choice("All", _address(given, state=""), "state" not in given, len(rows))
    return Filter(
        "state",
        [everything]
        + [
            Choice(text, _address(given, state=slug), given.get("state") == slug, counts[slug])
            for slug, text in names.items()
        ],
    )


def _filter(
    name: str, counts: Counter[str], known: Sequence[str], given: Mapping[str, str]
) -> Filter:
    everything = Choice("All", _address(given, **{name: ""}), name not in given, counts.total())
    return Filter(
        name,
        [everything]
        + [
            Choice(slug, _address(given, **{name: slug}), given.get(name) == slug, counts[slug])
            for slug in dict.fromkeys([*known, *sorted(counts)])
        ],
    )


def _address(given: Mapping[str, str], **changes: str) -> str:
    """The query string with those changes; without the page, unless that is one of them."""
    return "?" + urlencode({name: value for name, value in {**given, **changes}.items() if value})


def _page(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1
