"""Proves chat/checks.py: a wrong key of the transport is told at start, with its fix."""

from __future__ import annotations

import resource

import pytest
from django.core.checks import CheckMessage, run_checks

PROFILES = [{"slug": "default"}]


def found(settings, **webchat: object) -> list[CheckMessage]:
    """What `manage.py check` says of our settings."""
    settings.WEBCHAT = {"PROFILES": PROFILES, **webchat}
    return [message for message in run_checks() if str(message.id).startswith(("chat", "sessions"))]


@pytest.fixture(autouse=True)
def _a_machine_with_files_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))


def test_the_settings_as_they_are_need_no_word():
    assert run_checks() == []


def test_the_defaults_alone_need_no_word(settings):
    assert found(settings) == []


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("LOGIN_REQUIERD", "LOGIN_REQUIRED"),
        ("login_required", "LOGIN_REQUIRED"),
        ("PROMT_MAX_BYTES", "PROMPT_MAX_BYTES"),
        ("PROFILE", "PROFILES"),
        ("OPENAI_KEY", "OPENAI_API_KEY"),
    ],
)
def test_an_unknown_key_is_an_error_that_asks_what_was_meant(settings, key: str, meant: str):
    [error] = found(settings, **{key: 1})

    assert error.id == "chat.E001"
    assert repr(key) in error.msg
    assert error.hint == f"Did you mean {meant!r}?"


def test_an_unknown_key_like_no_other_is_an_error_that_lists_the_known(settings):
    [error] = found(settings, ZZZ=1)

    assert error.id == "chat.E001"
    assert "LOGIN_REQUIRED" in str(error.hint)
    assert "INFERENCE_TIMEOUT" in str(error.hint)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LOGIN_REQUIRED", "yes"),
        ("LOGIN_REQUIRED", 1),
        ("PROMPT_MAX_BYTES", "64k"),
        ("PROMPT_MAX_BYTES", 0),
        ("BODY_MAX_BYTES", 1.5),
        ("HEARTBEAT", 0),
        ("HEARTBEAT", -1.0),
        ("LOG_WINDOW_FRAMES", None),
        ("METRICS", "yes"),
        ("METRICS_TOKEN", 1),
        ("LOOP_LAG_WARNING", 0),
    ],
)
def test_a_wrong_value_is_an_error_that_names_key_and_default(settings, key: str, value: object):
    [error] = found(settings, **{key: value})

    assert error.id == "chat.E002"
    assert f"WEBCHAT[{key!r}]" in error.msg
    assert "default" in str(error.hint)


@pytest.mark.parametrize(
    "token", ["fifteen-letters", "with a blank in the middle", "é" * 20, "line\n" * 5]
)
def test_a_token_that_is_weak_or_cannot_be_sent_is_an_error_that_does_not_repeat_it(
    settings, token: str
):
    [error] = found(settings, METRICS_TOKEN=token)

    assert error.id == "chat.E003"
    assert token not in f"{error.msg} {error.hint}"


def test_every_wrong_key_is_told_at_once(settings):
    errors = found(settings, LOGIN_REQUIRED=3, HEARTBEAT="x", NOTHING=1, INFERENCE_TIMEOUT=0)

    assert sorted(str(error.id) for error in errors) == [
        *("chat.E001", "chat.E002", "chat.E002", "sessions_app.E002")
    ]


def test_without_any_settings_of_ours_the_error_says_what_to_write(settings):
    del settings.WEBCHAT
    errors = run_checks()

    assert errors
    assert all(error.hint for error in errors)


@pytest.mark.parametrize(("allowed", "ids"), [(4000, []), (3999, ["chat.W001"])])
def test_fewer_files_than_twice_the_sockets_are_warned_of(
    settings, monkeypatch: pytest.MonkeyPatch, allowed: int, ids: list[str]
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, allowed))
    told = found(settings, SOCKETS_PER_PROCESS=2000)
    assert [message.id for message in told] == ids
    assert all(
        "below 4000" in message.msg and "LimitNOFILE=4000" in str(message.hint) for message in told
    )
