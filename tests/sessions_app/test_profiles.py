"""Profiles: named runtimes, in configured order, each with a fingerprint that says which it is."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from sessions_app.inference.errors import ProfileNotFound
from sessions_app.profiles import Profile, Profiles

CHAT = Profile(slug="chat", title="Chat", model="demo", system_prompt="be brief")
CODE = Profile(slug="code")


def test_equal_profiles_have_equal_fingerprints():
    again = msgspec.json.decode(msgspec.json.encode(CHAT), type=Profile)
    assert again is not CHAT
    assert again.fingerprint == CHAT.fingerprint


def test_the_fingerprint_is_the_same_in_another_process():
    program = f"from sessions_app.profiles import Profile; print({CHAT!r}.fingerprint)"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert answer.stdout.strip() == CHAT.fingerprint


@pytest.mark.parametrize("field", Profile.__struct_fields__)
def test_a_change_of_any_field_is_a_change_of_the_fingerprint(field: str):
    other = msgspec.structs.replace(CHAT, **{field: "other"})
    assert other.fingerprint != CHAT.fingerprint


def test_the_fingerprint_tells_nothing_of_the_prompt():
    assert len(CHAT.fingerprint) == 16
    assert int(CHAT.fingerprint, 16) >= 0


def test_the_first_profile_is_the_default():
    profiles = Profiles([CHAT, CODE])
    assert profiles.default is profiles.get(None) is CHAT
    assert profiles.get("code") is CODE


def test_an_unknown_profile_is_an_error_that_names_the_known_ones_and_the_likely_meaning():
    with pytest.raises(ProfileNotFound) as caught:
        Profiles([CHAT, CODE]).get("cod")
    assert "'cod'" in str(caught.value)
    assert "chat, code" in str(caught.value)
    assert "Did you mean 'code'?" in str(caught.value)


def test_an_endless_name_is_not_repeated_in_the_error():
    with pytest.raises(ProfileNotFound) as caught:
        Profiles([CHAT]).get("x" * 100_000)
    assert len(str(caught.value)) < 300


def test_what_a_client_sees_is_in_configured_order_and_marks_the_default():
    infos = Profiles([CODE, CHAT]).infos()
    assert [(info.slug, info.default) for info in infos] == [("code", True), ("chat", False)]


def test_a_profile_without_a_title_is_shown_by_its_slug():
    assert [info.title for info in Profiles([CODE, CHAT]).infos()] == ["code", "Chat"]


def test_a_misspelt_field_is_refused():
    with pytest.raises(msgspec.ValidationError, match="sytem_prompt"):
        msgspec.convert({"slug": "chat", "sytem_prompt": "x"}, type=Profile)
