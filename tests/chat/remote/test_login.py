"""Proves chat/remote/login.py: a log-in that lasts no longer than its command."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session
from django.utils.timezone import now

from chat.remote.errors import UnknownAccount
from chat.remote.login import LASTS_SECONDS, logged_in
from chat.reread import reread

pytestmark = pytest.mark.django_db


@pytest.fixture
def anna() -> User:
    return User.objects.create(username="anna", password="!")


def test_the_account_is_logged_in_within_the_block_alone(anna: User):
    with logged_in("anna") as login:
        [key] = login.cookies.values()
        assert reread({key})[key].owner == f"user:{anna.pk}"
    assert reread({key}) == {}
    assert not Session.objects.exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_the_block_logs_out(anna: User, failure: type[BaseException]):
    with pytest.raises(failure), logged_in("anna"):
        raise failure
    assert not Session.objects.exists()


def test_a_log_in_that_nobody_could_end_ends_by_itself(anna: User):
    with logged_in("anna") as login:
        lasts = Session.objects.get().expire_date - now()
        assert timedelta(seconds=LASTS_SECONDS - 10) < lasts <= timedelta(seconds=LASTS_SECONDS)
        Session.objects.update(expire_date=now() + timedelta(seconds=1))
        login.renew()
        assert Session.objects.get().expire_date > now() + timedelta(seconds=LASTS_SECONDS - 10)


def test_a_log_in_that_was_ended_by_somebody_else_is_not_begun_anew(anna: User):
    with logged_in("anna") as login:
        Session.objects.all().delete()
        login.renew()
        assert not Session.objects.exists()


def test_it_counts_as_no_log_in_of_the_persons(anna: User):
    heard = []

    def hear(**told: object) -> None:
        heard.append(told)

    user_logged_in.connect(hear)
    with logged_in("anna"):
        pass
    user_logged_in.disconnect(hear)
    anna.refresh_from_db()

    assert heard == []
    assert anna.last_login is None


def test_an_account_that_is_not_there_is_said_with_the_one_that_was_meant(anna: User):
    with (
        pytest.raises(UnknownAccount, match="no user 'ana'; did you mean 'anna'"),
        logged_in("ana"),
    ):
        pass
    with pytest.raises(UnknownAccount, match="no user 'xyz'; name an account"), logged_in("xyz"):
        pass


def test_an_account_that_was_closed_is_not_logged_in(anna: User):
    anna.is_active = False
    anna.save()

    with pytest.raises(UnknownAccount, match="closed"), logged_in("anna"):
        pass
    assert not Session.objects.exists()
