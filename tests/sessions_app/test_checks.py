"""Proves sessions_app/checks.py: profiles and models that cannot be built are told at start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import WARNING, CheckMessage, run_checks

from sessions_app.inference.engines.demo import DemoEngine

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = {"slug": "default"}


def found(settings, **webchat: object) -> list[CheckMessage]:
    """What `manage.py check` says of our settings."""
    settings.WEBCHAT = webchat
    return [message for message in run_checks() if str(message.id).startswith(("chat", "sessions"))]


def test_the_least_settings_need_no_word(settings):
    assert found(settings, PROFILES=[DEFAULT]) == []


def test_missing_profiles_are_an_error_with_an_example(settings):
    [error] = found(settings)

    assert error.id == "sessions_app.E001"
    assert "WEBCHAT['PROFILES'] is missing" in error.msg
    assert "{'slug': 'default'}" in str(error.hint)


@pytest.mark.parametrize(
    ("profiles", "wrong"),
    [
        ([], "length"),
        ("default", "array"),
        ([{"title": "Assistant"}], "slug"),
        ([{"slug": 7}], "slug"),
        ([{"slug": "default", "promt": "Hello"}], "promt"),
        ([DEFAULT, {"slug": "a", "system_prompt": None}], "system_prompt"),
    ],
)
def test_a_profile_of_the_wrong_shape_is_an_error_that_names_the_place(
    settings, profiles: object, wrong: str
):
    [error] = found(settings, PROFILES=profiles)

    assert error.id == "sessions_app.E002"
    assert "WEBCHAT['PROFILES']" in error.msg
    assert wrong in error.msg
    assert error.hint


@pytest.mark.parametrize("key", ["INFERENCE_TIMEOUT", "CANCEL_GRACE"])
@pytest.mark.parametrize("value", [0, -1, "ten"])
def test_a_time_that_is_none_is_an_error(settings, key: str, value: object):
    [error] = found(settings, PROFILES=[DEFAULT], **{key: value})

    assert error.id == "sessions_app.E002"
    assert f"WEBCHAT[{key!r}]" in error.msg


def test_the_documents_that_hints_name_are_there(settings):
    [error] = found(settings, PROFILES=[DEFAULT], CANCEL_GRACE=0)

    named = [word.strip(".;,") for word in str(error.hint).split() if word.startswith("docs/")]
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_a_slug_twice_is_an_error(settings):
    errors = found(settings, PROFILES=[DEFAULT, {"slug": "a"}, DEFAULT, {"slug": "a"}])

    assert [error.id for error in errors] == ["sessions_app.E003"] * 2
    assert "'default'" in errors[0].msg
    assert errors[0].hint


@pytest.mark.parametrize(
    ("model", "said", "hint"),
    [
        ("opneai-chat:gpt", "Did you mean 'openai-chat'?", "openai-chat:"),
        ("gpt-5-mini", "unknown model scheme", "WEBCHAT_MODEL"),
        ("openai-chat:", "names no model", "after the colon"),
        ("openai-chat", "names no model", "after the colon"),
        ("openai-chat:gpt", "OPENAI_API_KEY is not set", "OPENAI_BASE_URL"),
        ("anthropic:claude", "ANTHROPIC_API_KEY is not set", "Set ANTHROPIC_API_KEY."),
        ("google:gemini", "GEMINI_API_KEY is not set", "Set GEMINI_API_KEY."),
        ("demo:x", "takes no name", "demo"),
        ("local:x", "unknown local model", "OPENAI_BASE_URL"),
        ("", "unknown model scheme", "demo"),
    ],
)
def test_a_model_that_cannot_be_built_is_an_error_with_the_fix(
    settings, model: str, said: str, hint: str
):
    [error] = found(settings, PROFILES=[DEFAULT], MODEL=model)

    assert error.id == "sessions_app.E004"
    assert said in error.msg
    assert hint in str(error.hint)


def test_a_profiles_own_model_is_checked_too_and_each_once(settings):
    profiles = [DEFAULT, *({"slug": slug, "model": "nothing:x"} for slug in "ab")]
    [error] = found(settings, PROFILES=profiles)

    assert error.id == "sessions_app.E004"
    assert "'nothing:x'" in error.msg


def parrot(model: str) -> DemoEngine:
    return DemoEngine()


PARROT = {"parrot": f"{__name__}.parrot"}


@pytest.mark.parametrize("model", ["parrot", "parrot:green"])
def test_a_model_may_be_an_engine_of_the_apps_own(settings, model: str):
    assert found(settings, PROFILES=[DEFAULT], MODEL=model, ENGINES=PARROT) == []
    [error] = found(settings, PROFILES=[DEFAULT], MODEL="parot", ENGINES=PARROT)
    assert "Did you mean 'parrot'?" in error.msg


@pytest.mark.parametrize(
    ("engines", "said"),
    [
        ({"demo": "chat.nothing"}, "has the name 'demo'"),
        ({"a:b": "chat.nothing"}, "has the name 'a:b'"),
        ({"parrot": "chat.nothing"}, "cannot be imported"),
        ({"parrot": "sessions_app.conf.DEFAULT_TOOLS"}, "which is a tuple"),
    ],
)
def test_an_engine_that_cannot_be_made_is_an_error(settings, engines: object, said: str):
    [error] = found(settings, PROFILES=[DEFAULT], ENGINES=engines)

    assert error.id == "sessions_app.E005"
    assert said in error.msg
    assert error.hint


@pytest.mark.parametrize(
    ("model", "package", "key"),
    [
        ("anthropic:claude", "anthropic", "ANTHROPIC_API_KEY"),
        ("openai-chat:gpt", "openai", "OPENAI_API_KEY"),
        ("google:gemini", "google.genai", "GEMINI_API_KEY"),
        ("openai-chat:gpt", "pydantic_ai", "OPENAI_API_KEY"),
    ],
)
def test_a_model_without_its_package_is_an_error_that_says_what_to_install(
    settings, monkeypatch, model: str, package: str, key: str
):
    monkeypatch.setitem(sys.modules, package, None)
    [error] = found(settings, PROFILES=[DEFAULT], MODEL=model, **{key: "sk-1"})

    assert error.id == "sessions_app.E004"
    assert package in error.msg
    assert "pip install -r requirements.txt" in str(error.hint)


@pytest.mark.parametrize("secret", ["sk-with a space", "“sk-quoted”"])
def test_a_key_that_cannot_be_one_is_an_error_that_does_not_repeat_it(settings, secret: str):
    [error] = found(settings, PROFILES=[DEFAULT], MODEL="openai-chat:gpt", OPENAI_API_KEY=secret)

    assert error.id == "sessions_app.E004"
    assert secret not in f"{error.msg} {error.hint}"


def test_a_key_that_is_good_is_in_no_message(settings):
    assert found(settings, PROFILES=[DEFAULT], MODEL="openai-chat:x", OPENAI_API_KEY="sk-1") == []


MCP = {"MCP_SERVERS": {"files": {"command": sys.executable}}}


def test_an_mcp_server_that_can_be_reached_needs_no_word(settings):
    profile = {**DEFAULT, "tools": ["calc", "files_*", "files_read"]}
    assert found(settings, PROFILES=[profile], **MCP) == []


@pytest.mark.parametrize(
    ("server", "wrong"),
    [
        ({}, "got neither"),
        ({"command": "npx", "env": {"TOKEN": 7}}, "Expected `str`"),
        ({"url": "http://anna:sk-1@127.0.0.1/"}, "use `headers`"),
    ],
)
def test_an_mcp_server_of_the_wrong_shape_is_an_error_that_names_it(
    settings, server: object, wrong: str
):
    [error] = found(settings, PROFILES=[DEFAULT], MCP_SERVERS={"files": server})

    assert error.id == "sessions_app.E002"
    assert wrong in error.msg
    assert "sk-1" not in f"{error.msg} {error.hint}"


@pytest.mark.parametrize("package", ["fastmcp", "mcp"])
def test_an_mcp_server_without_the_library_is_an_error_with_the_line_to_run(
    settings, monkeypatch, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    [error] = found(settings, PROFILES=[DEFAULT], **MCP)

    assert error.id == "sessions_app.E006"
    assert package in error.msg
    assert "pip install -r requirements-mcp.txt" in str(error.hint)


def test_tracing_without_its_packages_is_an_error_with_the_line_to_run(settings, monkeypatch):
    assert found(settings, PROFILES=[DEFAULT], TRACING=True) == []
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    [error] = found(settings, PROFILES=[DEFAULT], TRACING=True)

    assert error.id == "sessions_app.E008"
    assert "opentelemetry.sdk" in error.msg
    assert "pip install -r requirements-otel.txt" in str(error.hint)
    assert found(settings, PROFILES=[DEFAULT], TRACING=False) == []


@pytest.mark.parametrize("prefix", ["my", "my_files", "1"])
def test_a_prefix_that_cannot_be_one_is_an_error(settings, prefix: str):
    servers = {prefix: {"command": sys.executable}}
    [error] = found(settings, PROFILES=[DEFAULT], MCP_SERVERS=servers)

    assert error.id == "sessions_app.E007"
    assert repr(prefix) in error.msg
    assert error.hint


def test_a_command_that_is_not_there_is_a_warning_as_the_rest_works_without(settings):
    servers = {"files": {"command": "no-such-program"}}
    [warning] = found(settings, PROFILES=[DEFAULT], MCP_SERVERS=servers)

    assert (warning.id, warning.level) == ("sessions_app.W001", WARNING)
    assert "'files'" in warning.msg


@pytest.mark.parametrize("name", ["fils_read", "files_", "files", "x_*"])
def test_a_tool_of_no_server_is_an_error_that_says_what_there_is(settings, name: str):
    [error] = found(settings, PROFILES=[{**DEFAULT, "tools": [name]}], **MCP)

    assert error.id == "sessions_app.E005"
    assert f"unknown tool {name!r}" in error.msg
    assert "files_*" in error.msg


def test_the_check_command_fails_and_names_the_fix(tmp_path: Path):
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    env |= {"WEBCHAT_MODEL": "openai-chat:x", "WEBCHAT_STATE_DIR": str(tmp_path)}
    env.pop("OPENAI_BASE_URL", None)
    run = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=env, capture_output=True, text=True
    )

    assert run.returncode == 1
    assert "sessions_app.E004" in run.stderr
    assert "HINT: Set OPENAI_API_KEY." in run.stderr
    assert "Traceback" not in run.stderr
