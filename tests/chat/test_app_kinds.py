"""Kinds of events that apps define: how they are registered, and what their folds do to frames."""

from __future__ import annotations

import json
import logging
from functools import reduce
from typing import Any, cast

import pytest
from django.core.checks import run_checks
from django.template.loader import render_to_string
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import frames
from chat.app_kinds import AppKind, AppKinds, Props
from chat.cards import arrange
from chat.log import MemoryFrameLog
from chat.timeline import Entity
from chat.translate import APP_PROPS_MAX_BYTES as LARGEST
from chat.translate import Translator
from sessions_app.inference.errors import ConfigurationError
from sessions_app.inference.events import CORE_KINDS, AppEvent, Event, Log, ToolCallRequested
from tests.chat.wire import ORIGIN, Json, Page, at_once, frames_of, numbered


def added(before: Props, told: Props) -> Props:
    """Numbers are summed up, all else replaced."""
    numbers = {n: v for n, v in told.items() if isinstance(v, int) and n in before}
    sums = {n: before[n] + v for n, v in numbers.items() if isinstance(before[n], int)}
    return {**before, **told, **sums}


def latest(before: Props, told: Props) -> Props:
    """Only what was told last; all else is gone."""
    return told


def counted(before: Props, told: Props) -> Props:
    """A list that grows, in place: a fold is given copies."""
    assert isinstance(before, dict)
    before.setdefault("all", []).append(dict(told))
    return before


def broken(before: Props, told: Props) -> Props:
    """Changes what it is given, then raises."""
    assert isinstance(before, dict)
    assert isinstance(told, dict)
    before["half"] = told["half"] = "done"
    raise KeyError("nothing")


def shapeless(before: Props, told: Props) -> Props:
    """Says what is no object."""
    return 7  # type: ignore[return-value]


FOLDS = {fold.__name__: fold for fold in (added, latest, counted, broken, shapeless)}
KINDS = AppKinds([AppKind("merged"), *(AppKind(name, fold=fold) for name, fold in FOLDS.items())])


# Registration


@pytest.mark.parametrize("kind", ["", "two words", "1st", "a.b", "ä", "x" * 65, "<b>", "a\n"])
def test_a_kind_that_cannot_stand_in_a_frame_is_refused_wherever_it_is_named(kind: str):
    for name_it in (AppKind, lambda kind: AppEvent(kind=kind, id="1", props={})):
        with pytest.raises(ConfigurationError, match="cannot be the kind") as refusal:
            name_it(kind)
        assert "A-Z" in refusal.value.hint


@pytest.mark.parametrize("kind", sorted(CORE_KINDS))
def test_a_kind_of_ours_is_refused_wherever_it_is_named(kind: str):
    for name_it in (AppKind, lambda kind: AppEvent(kind=kind, id="1", props={})):
        with pytest.raises(ConfigurationError, match="is one of Webchat's own"):
            name_it(kind)


def test_an_event_without_an_id_is_refused():
    with pytest.raises(ConfigurationError, match="has no id"):
        AppEvent(kind="mood", id="", props={})


def test_two_kinds_of_one_name_are_refused_and_the_same_one_again_is_not():
    kinds = AppKinds([AppKind("mood", fold=added)])
    kinds.register(AppKind("mood", fold=added))
    with pytest.raises(ConfigurationError, match="two kinds of app events are named 'mood'"):
        kinds.register(AppKind("mood", fold=latest))
    assert [kind.fold for kind in kinds] == [added]


def test_a_module_without_a_template_is_refused():
    with pytest.raises(ConfigurationError, match=r"the module 'mood/card\.js' and no template"):
        AppKind("mood", module="mood/card.js")


@pytest.mark.parametrize(
    ("options", "id", "says"),
    [
        ({"template": "no/such.html"}, "chat.E004", "TemplateDoesNotExist"),
        ({"template": "chat/cards/log.html", "module": "no/such.js"}, "chat.E005", "no/such.js"),
        ({"style": "no/such.css"}, "chat.E005", "no/such.css"),
    ],
)
def test_what_a_kind_names_and_is_not_there_is_told_at_start(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], id: str, says: str
):
    monkeypatch.setattr("chat.checks.default_kinds", AppKinds([AppKind("mood", **options)]))
    [error] = run_checks()
    assert error.id == id
    assert "'mood'" in error.msg
    assert says in error.msg
    assert error.hint


# Frames


def told(*events: Event, kinds: AppKinds = KINDS) -> list[Json]:
    """The data of the frames that these events become."""
    return [json.loads(frames.encode_body(frame))["data"] for frame in frames_of(events, kinds)]


def event(kind: str, **props: object) -> AppEvent:
    return AppEvent(kind=kind, id=f"{kind}:1", props=props)


def test_a_frame_tells_what_its_event_changed():
    assert told(event("added", n=2, is_="a"), event("added", n=3), event("added", n=0)) == [
        {"props": {"n": 2, "is_": "a"}},
        {"props": {"n": 5}},
        {"props": {}},
    ]


def test_a_frame_names_the_props_that_are_gone():
    assert told(event("latest", a=1, b=2), event("latest", b=2, c=3)) == [
        {"props": {"a": 1, "b": 2}},
        {"props": {"c": 3}, "removed": ["a"]},
    ]


def test_what_python_holds_equal_and_json_does_not_is_a_change():
    changes = told(event("latest", a=True), event("latest", a=1), event("latest", a=1.0))
    assert [type(change["props"]["a"]) for change in changes] == [bool, int, float]


@pytest.mark.parametrize("kind", ["merged", "unregistered"])
def test_without_a_fold_a_frame_has_the_props_of_its_event(kind: str):
    same = {"props": {"a": 1}}
    assert told(event(kind, a=1), event(kind, a=1)) == [same, same]


def test_entities_of_one_kind_are_folded_each_on_its_own():
    one, other = (AppEvent(kind="added", id=id, props={"n": 1}) for id in ("1", "2"))
    assert told(one, other, one) == [{"props": {"n": 1}}, {"props": {"n": 1}}, {"props": {"n": 2}}]


@pytest.mark.parametrize("kind", ["broken", "shapeless"])
def test_a_fold_that_fails_is_logged_and_its_event_merged(
    kind: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR, "chat.translate"):
        data = told(event(kind, a=1), event(kind, b=2), Log(message="on"))
    assert data[:2] == [{"props": {"a": 1}}, {"props": {"b": 2}}]
    assert data[2]["message"] == "on"
    assert [record.getMessage() for record in caplog.records] == [
        f"the fold of the app kind {kind!r} raised; its props are merged"
    ] * 2


@pytest.mark.parametrize(
    ("first", "owner"),
    [
        (ToolCallRequested(call_id="x", name="calc", input={}), "something of ours"),
        (AppEvent(kind="mood", id="x", props={}), "the kind 'mood'"),
    ],
    ids=["ours", "another app's"],
)
def test_an_id_belongs_to_what_used_it_first(first: Event, owner: str):
    translator = Translator("conv", monotonic_ms=lambda: 0)
    translator.translate(first, ORIGIN)
    weather = AppEvent(kind="weather", id="x", props={})
    with pytest.raises(ValueError, match=f"belongs to {owner}; give it .* as in 'weather:x'"):
        translator.translate(weather, ORIGIN)
    [frame] = translator.translate(AppEvent(kind="weather", id="weather:x", props={}), ORIGIN)
    assert frame.id == "weather:x"


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("unregistered", {}, {"a": "x" * LARGEST}),
        ("counted", {"a": "x" * (LARGEST - 20)}, {"b": 1}),
    ],
    ids=["told", "folded"],
)
def test_props_too_large_are_refused_and_the_entity_stays_as_it_was(
    kind: str, first: Json, second: Json
):
    translator = Translator("conv", monotonic_ms=lambda: 0, kinds=KINDS)
    translator.translate(event(kind, **first), ORIGIN)
    with pytest.raises(ValueError, match=f"of the kind {kind!r} are .* tell at most 65536"):
        translator.translate(event(kind, **second), ORIGIN)
    [again] = translator.translate(event("merged", a=1), ORIGIN)
    assert again.id == "merged:1"


# The card

MOOD = "{% load cards %}<b>{% if props.at %}{{ props.at|moment|date:'Y' }}{% endif %}</b>"


def test_a_template_that_raises_leaves_its_card_blank_and_the_page_whole(
    settings: Any, caplog: pytest.LogCaptureFixture
):
    loaders = [
        ("django.template.loaders.locmem.Loader", {"mood.html": MOOD}),
        "django.template.loaders.filesystem.Loader",
    ]
    [engine] = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {"loaders": loaders}}]
    kinds = AppKinds([AppKind("mood", template="mood.html")])
    times: dict[str, object] = {"1": 1, "2": "soon"}
    entities = [
        Entity(
            id=id, kind="mood", created_at_ms=0, updated_at_ms=0, created_seq=1, updated_seq=1,
            props={"at": at},
        )
        for id, at in times.items()
    ]  # fmt: skip
    cards = arrange(entities, kinds)
    with caplog.at_level(logging.ERROR):
        drawn = [render_to_string(card.template, {"card": card}) for card in cards]
    assert ["<b>1970</b>" in drawn[0], "<b></b>" in drawn[1]] == [True, True]
    assert "&quot;soon&quot;" in drawn[1]
    [told] = caplog.records
    assert told.getMessage() == "template mood.html could not be rendered"


# Any order

values = st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from(["a", "\ud83d"]), st.none())
app_events = st.builds(
    lambda kind, number, props: AppEvent(kind=kind, id=f"{kind}:{number}", props=props),
    kind=st.sampled_from([*FOLDS, "merged", "unregistered"]),
    number=st.integers(1, 2),
    props=st.dictionaries(st.sampled_from(["a", "b", "1", "__proto__"]), values, max_size=3),
)
conversations = st.lists(app_events | st.just(Log(message="on")), max_size=15)


class Told:
    """A conversation's frames as a client gets them, and its snapshot after each of them."""

    def __init__(self, events: list[Event]) -> None:
        log = MemoryFrameLog("conv", epoch=1, now_ms=lambda: 0)

        def snapshot() -> Json:
            taken = at_once(log.snapshot())
            said = json.loads(frames.connection_frame("timeline.snapshot", "conv", taken))
            return cast(Json, said["event"]["data"])

        self.snapshots, self.wire = [snapshot()], []
        for frame in numbered(frames_of(events, KINDS)):
            at_once(log.append([frame]))
            self.wire.append(json.loads(frame.entry.text)["event"])
            self.snapshots.append(snapshot())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Folds that fail on purpose would fill the log."""
    caplog.set_level(logging.CRITICAL, "chat.translate")


@settings(max_examples=100, deadline=None)
@given(conversations)
def test_whatever_the_fold_a_snapshot_and_the_frames_after_it_are_the_snapshot_at_the_head(
    events: list[Event],
):
    conversation = Told(events)
    for snapshot in conversation.snapshots:
        page = Page()
        page.replace(snapshot)
        for frame in conversation.wire[snapshot["version"] :]:
            page.take(frame)
            page.assert_shows(conversation.snapshots[frame["seq"]])


@settings(max_examples=100, deadline=None)
@given(conversations)
def test_an_entity_s_props_are_its_events_folded_by_its_kind(events: list[Event]):
    def folded(before: Json, event: AppEvent) -> Json:
        # Twice through JSON: it has no surrogates, and a fold must not reach what is kept.
        said = _json(event.props)
        if event.kind in ("added", "latest", "counted"):
            return _json(FOLDS[event.kind](_json(before), said))
        return {**before, **said}

    shown = {entity["id"]: entity["props"] for entity in Told(events).snapshots[-1]["entities"]}
    for id in {event.id for event in events if isinstance(event, AppEvent)}:
        mine = [event for event in events if isinstance(event, AppEvent) and event.id == id]
        start: Json = {}
        # As text: for Python 1 and True are equal.
        expected = json.dumps(reduce(folded, mine, start), sort_keys=True)
        assert json.dumps(shown[id], sort_keys=True) == expected


def _json(value: object) -> Json:
    said: Json = json.loads(json.dumps(value).replace("\\ud83d", "\ufffd"))
    return said
