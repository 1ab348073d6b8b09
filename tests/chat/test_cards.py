"""chat/cards.py: which card an entity is, and where it sits."""

from __future__ import annotations

from pathlib import Path

from chat.app_kinds import AppKind, AppKinds
from chat.cards import CARD_NAMES, PART_CARDS, Card, arrange, blank_cards, in_parts
from chat.timeline import Entity
from sessions_app.inference.events import CORE_KINDS

ROOT = Path(__file__).resolve().parents[2]
NO_KINDS = AppKinds()


def entity(id: str, kind: str, created: int, updated: int, **props: object) -> Entity:
    return Entity(
        id=id,
        kind=kind,
        created_at_ms=0,
        updated_at_ms=0,
        created_seq=created,
        updated_seq=updated,
        props=props,
    )


def test_what_appears_while_an_inference_runs_sits_inside_it():
    cards = arrange(
        [
            entity("u", "message", 1, 1, role="user"),
            entity("i", "inference", 2, 6, status="completed"),
            entity("a", "message", 3, 5, role="assistant"),
            entity("l", "log", 4, 4),
            entity("late", "log", 7, 7),
            entity("u2", "message", 8, 8, role="user"),
            entity("i2", "inference", 9, 9, status="running"),
            entity("t", "message", 10, 20, role="thinking"),
        ],
        NO_KINDS,
    )
    assert [card.id for card in cards] == ["u", "i", "late", "u2", "i2"]
    assert [card.id for card in cards[1].cards] == ["a", "l"]
    assert [card.name for card in cards[4].cards] == ["thinking"]


def test_the_result_of_a_tool_sits_inside_its_call():
    cards = arrange(
        [
            entity("i", "inference", 1, 9, status="completed"),
            entity("a", "tool_call", 2, 6),
            entity("b", "tool_call", 3, 8),
            entity("a:result", "tool_result", 5, 5),
            entity("b:result", "tool_result", 7, 7),
            entity("c:result", "tool_result", 8, 8),
        ],
        NO_KINDS,
    )
    [inference] = cards
    assert [card.id for card in inference.cards] == ["a", "b", "c:result"]
    assert [[held.id for held in card.cards] for card in inference.cards[:2]] == [
        ["a:result"],
        ["b:result"],
    ]


def test_an_unknown_role_gets_the_readable_card():
    [card] = arrange([entity("x", "message", 1, 1, role="oracle")], NO_KINDS)
    assert card.name == "other"


def test_an_app_s_kind_has_a_card_of_its_own_where_it_has_a_template():
    kinds = AppKinds([AppKind("mood", template="mood.html"), AppKind("plain")])
    mood, plain, unknown = arrange(
        [entity("m", "mood", 1, 1), entity("p", "plain", 2, 2), entity("u", "unknown", 3, 3)], kinds
    )
    assert (mood.name, mood.template, mood.app) == (
        "app.mood", "chat/cards/app.html", kinds.get("mood")
    )  # fmt: skip
    assert (plain.name, plain.kind, plain.app) == ("other", "plain", None)
    assert (unknown.name, unknown.kind) == ("other", "unknown")
    assert [card.name for card in blank_cards(kinds)] == [*CARD_NAMES, "app.mood"]


def test_no_app_can_take_the_name_of_a_card_of_ours():
    assert {*CARD_NAMES, "message"} == CORE_KINDS


def test_every_card_has_a_template_and_a_module():
    for name in CARD_NAMES:
        assert (ROOT / f"templates/chat/cards/{name}.html").is_file()
        assert (ROOT / f"chat/static/chat/js/cards/{name}.js").is_file()


def test_the_cards_of_a_page_stand_in_parts_that_are_full_but_for_the_last():
    cards = [Card(name="log", id=str(number)) for number in range(PART_CARDS * 2 + 3)]
    parts = in_parts(cards)
    assert [len(part) for part in parts] == [PART_CARDS, PART_CARDS, 3]
    assert [card for part in parts for card in part] == cards
    assert in_parts([]) == []
