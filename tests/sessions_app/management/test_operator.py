"""Proves sessions_app/management/commands/operator.py: a first account, told once."""

import re
from io import StringIO

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db


def said(**options: str) -> str:
    out = StringIO()
    call_command("operator", stdout=out, **options)
    return out.getvalue()


def test_the_first_run_makes_a_superuser_and_says_how_to_sign_in():
    message = re.search(r"username (\S+), password (\S+)$", said(), re.MULTILINE)

    assert message
    user = authenticate(username=message[1], password=message[2])
    assert user == User.objects.get(username="operator")
    assert user.is_staff
    assert user.is_superuser


def test_the_second_run_says_and_changes_nothing():
    said()
    before = User.objects.values_list().get()

    assert said(username="somebody") == ""
    assert User.objects.values_list().get() == before


def test_the_user_name_can_be_chosen():
    assert "username root," in said(username="root")
    assert User.objects.get().username == "root"


def test_somebody_elses_account_is_not_raised():
    User.objects.create_user("operator")

    with pytest.raises(CommandError, match=r"'operator' belongs to somebody .* --username NAME"):
        said()

    assert not User.objects.get().is_superuser


def test_a_process_that_comes_second_is_silent(monkeypatch):
    def while_another_process_is_quicker(_length: int) -> str:
        User.objects.create_superuser("operator", password="theirs")
        return "mine"

    monkeypatch.setattr("secrets.token_urlsafe", while_another_process_is_quicker)

    assert said() == ""
    assert User.objects.get().check_password("theirs")
