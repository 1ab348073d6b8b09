"""Proves sessions_app/access.py. Every route and socket with it: tests/chat/test_matrix.py."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User

from sessions_app.access import (
    ACTIONS,
    OWNERS_ACTIONS,
    PERMISSIONS,
    Action,
    Identity,
    account,
    can,
    permitted_anywhere,
)

GRANTS: dict[str, frozenset[Action]] = {
    "view_livesession": frozenset({"view"}),
    "transcript_livesession": frozenset({"transcript"}),
    "cancel_livesession": frozenset({"cancel", "drop", "evict"}),
    "step_livesession": frozenset({"step", "decide"}),
}
ON_A_CONVERSATION = tuple(action for action in ACTIONS if action != "create")


@dataclass(frozen=True)
class Conversation:
    owner: str


ANNAS = Conversation("visitor:anna")
ANNA, BERT, NOBODY = Identity("visitor:anna"), Identity("visitor:bert"), Identity(None)


def test_an_owner_may_do_everything_that_is_not_the_operators():
    assert {action for action in ACTIONS if can(ANNA, action, ANNAS)} == OWNERS_ACTIONS
    assert set(ACTIONS) - OWNERS_ACTIONS == {"create", "drop", "evict"}


@pytest.mark.parametrize("action", ON_A_CONVERSATION)
@pytest.mark.parametrize("stranger", [BERT, NOBODY, Identity("user:anna")])
def test_a_stranger_may_do_nothing(stranger: Identity, action: Action):
    assert not can(stranger, action, ANNAS)
    assert not can(stranger, action, None)


def test_somebody_without_an_identity_owns_nothing_not_even_what_nobody_owns():
    assert not any(can(NOBODY, action, Conversation("None")) for action in ACTIONS)


def test_whoever_is_somebody_may_begin_a_conversation_that_does_not_exist():
    assert can(ANNA, "create", None)
    assert not can(NOBODY, "create", None)
    assert not can(ANNA, "create", ANNAS)


@pytest.mark.parametrize("permission", GRANTS)
def test_a_permission_allows_its_actions_in_everybodys_conversations_and_no_other(permission: str):
    staff = Identity("user:1", GRANTS[permission])

    assert {action for action in ON_A_CONVERSATION if can(staff, action, ANNAS)} == (
        GRANTS[permission]
    )
    assert {action for action in ON_A_CONVERSATION if can(staff, action, None)} == (
        GRANTS[permission]
    )


def test_nobody_but_the_owner_sends():
    everything = Identity("user:1", frozenset(PERMISSIONS))

    assert [action for action in ON_A_CONVERSATION if not can(everything, action, ANNAS)] == [
        "send"
    ]


@pytest.mark.parametrize("permission", GRANTS)
@pytest.mark.django_db
def test_the_permission_can_be_given_to_staff(permission: str):
    user = User.objects.create(username="a", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename=permission))
    read_anew = User.objects.get(pk=user.pk)

    assert account(read_anew) == Identity(f"user:{user.pk}", GRANTS[permission])


@pytest.mark.parametrize(
    ("active", "staff", "grants"),
    [
        (True, True, frozenset(PERMISSIONS)),
        (True, False, frozenset()),
        (False, True, frozenset()),
    ],
)
def test_a_superuser_is_granted_everything_as_active_staff_alone(
    active: bool, staff: bool, grants: frozenset[Action]
):
    user = User(pk=1, is_superuser=True, is_staff=staff, is_active=active)

    assert permitted_anywhere(user) == grants


def test_an_account_that_knows_no_staff_is_granted_nothing():
    class Bare:
        pk = 7
        is_active = True

    assert account(Bare()) == Identity("user:7")
    assert permitted_anywhere(AnonymousUser()) == frozenset()
