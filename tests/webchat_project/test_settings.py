"""Proves webchat_project/settings.py: safe as it is, and changed by its environment alone."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import AsyncClient

from chat.conf import ChatSettings
from webchat_project.testing import running_hub

OURS = (
    *("DEBUG", "SECRET_KEY", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "TRUST_X_FORWARDED_PROTO"),
    *("DATABASE_URL", "SECURE_COOKIES", "LOG_LEVEL", "WEBCHAT_MODEL", "WEBCHAT_LOGIN_REQUIRED"),
    *("OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"),
    *("SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS"),
    *("LOG_FORMAT", "WEBCHAT_METRICS", "WEBCHAT_METRICS_TOKEN"),
)


@pytest.fixture
def read(monkeypatch, tmp_path):
    """The settings as a fresh process reads them from an environment."""

    def with_environment(**env: str) -> dict[str, Any]:
        for name in OURS:
            monkeypatch.delenv(name, raising=False)
        for name, value in {"WEBCHAT_STATE_DIR": str(tmp_path), **env}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delitem(
            sys.modules, "webchat_project.settings", raising=False
        )  # runpy warns of a second
        return runpy.run_module("webchat_project.settings")

    return with_environment


def test_without_an_environment_it_is_safe(read):
    settings = read()

    assert settings["DEBUG"] is False
    assert settings["ALLOWED_HOSTS"] == ["127.0.0.1", "localhost", "[::1]"]
    assert settings["CSRF_TRUSTED_ORIGINS"] == []
    assert "SECURE_PROXY_SSL_HEADER" not in settings
    assert len(settings["SECRET_KEY"]) >= 50
    assert settings["SESSION_COOKIE_HTTPONLY"] is True
    assert settings["SESSION_COOKIE_SAMESITE"] == settings["CSRF_COOKIE_SAMESITE"] == "Lax"
    assert settings["X_FRAME_OPTIONS"] == "DENY"
    assert settings["SECURE_CONTENT_TYPE_NOSNIFF"] is True


def test_without_an_environment_it_needs_no_key_and_no_service(read, tmp_path):
    settings = read()

    assert settings["WEBCHAT"]["MODEL"] == "demo"
    assert settings["DATABASES"]["default"]["ENGINE"] == "django.db.backends.sqlite3"
    assert settings["DATABASES"]["default"]["NAME"] == str(tmp_path / "db.sqlite3")


def test_the_environment_changes_what_a_deployment_changes(read):
    settings = read(
        ALLOWED_HOSTS="chat.example.com,www.example.com",
        CSRF_TRUSTED_ORIGINS="https://chat.example.com",
        TRUST_X_FORWARDED_PROTO="1",
        SECURE_COOKIES="1",
        SECRET_KEY="given",
        DATABASE_URL="postgres://user:pw@db:5432/webchat",
        WEBCHAT_LOGIN_REQUIRED="true",
        WEBCHAT_MODEL="openai-chat:gpt",
        OPENAI_API_KEY="sk-1",
    )

    assert settings["ALLOWED_HOSTS"] == ["chat.example.com", "www.example.com"]
    assert settings["CSRF_TRUSTED_ORIGINS"] == ["https://chat.example.com"]
    assert settings["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")
    assert settings["SESSION_COOKIE_SECURE"] is settings["CSRF_COOKIE_SECURE"] is True
    assert settings["SECRET_KEY"] == "given"
    assert settings["DATABASES"]["default"]["HOST"] == "db"
    assert settings["WEBCHAT"]["LOGIN_REQUIRED"] is True
    assert settings["WEBCHAT"]["MODEL"] == "openai-chat:gpt"
    assert settings["WEBCHAT"]["OPENAI_API_KEY"] == "sk-1"


def test_the_log_knows_the_secrets_of_the_environment(read):
    settings = read(
        SECRET_KEY="the-secret-key",
        DATABASE_URL="postgres://user:the-password@db:5432/webchat",
        OPENAI_API_KEY="sk-the-key",
        WEBCHAT_METRICS_TOKEN="the-metrics-token",
        LOG_FORMAT="json",
        LOG_LEVEL="debug",
    )
    line = settings["LOGGING"]["formatters"]["line"]
    assert line["form"] == "json"
    assert settings["LOGGING"]["root"]["level"] == "DEBUG"
    assert set(line["secrets"]) >= {
        *("the-secret-key", "the-password", "sk-the-key", "the-metrics-token")
    }


def test_the_key_is_made_once_and_kept(read):
    assert read()["SECRET_KEY"] == read()["SECRET_KEY"]


@pytest.mark.parametrize("value", ["0", "false", "no", "off", ""])
def test_a_switch_that_is_off_is_off(read, value: str):
    assert read(DEBUG=value)["DEBUG"] is False
    assert "SECURE_PROXY_SSL_HEADER" not in read(TRUST_X_FORWARDED_PROTO=value)


def test_django_refuses_no_body_that_the_transport_takes(read):
    """Else the answer would name a bound that is not the one in force."""
    limit = read()["DATA_UPLOAD_MAX_MEMORY_SIZE"]

    assert limit is None or limit >= ChatSettings().body_max_bytes


def test_while_debugging_files_need_no_collecting(read):
    settings = read(DEBUG="1")

    assert settings["WHITENOISE_USE_FINDERS"] is True
    assert "Manifest" not in settings["STORAGES"]["staticfiles"]["BACKEND"]
    assert "Manifest" in read()["STORAGES"]["staticfiles"]["BACKEND"]


def test_the_daphne_app_comes_before_django_staticfiles(read):
    """So that `runserver` is Daphne's."""
    apps = read()["INSTALLED_APPS"]

    assert apps.index("daphne") < apps.index("django.contrib.staticfiles")


HTTPS = {
    "SECURE_COOKIES": "1",
    "SECURE_SSL_REDIRECT": "1",
    "SECURE_HSTS_SECONDS": "3600",
    "TRUST_X_FORWARDED_PROTO": "1",
}


def test_what_the_deployment_check_asks_for_can_be_set_by_the_environment(read, settings):
    def warned(**env: str) -> set[str | None]:
        for name, value in read(**env).items():
            if name.startswith(("SECURE_", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE")):
                setattr(settings, name, value)
        found = run_checks(tags=["security"], include_deployment_checks=True)
        # Whether all subdomains are https too, only their owner knows.
        return {each.id for each in found} - {"security.W005", "security.W021"}

    assert warned() == {"security.W004", "security.W008", "security.W012", "security.W016"}
    assert warned(**HTTPS) == set()


@pytest.mark.parametrize(
    ("without", "told"),
    [("Security", "W001"), ("XFrameOptions", "W002"), ("CsrfView", "W003")],
)
def test_a_middleware_that_guards_the_pages_is_missed(settings, without: str, told: str):
    left = f"webchat_project.inline.{without}Middleware"
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != left]
    found = run_checks(tags=["security"], include_deployment_checks=True)
    assert f"security.{told}" in {each.id for each in found}


async def test_http_is_sent_on_to_https_but_a_probe_is_not(read, settings, plain_static):
    async with running_hub():
        for name, value in read(**HTTPS).items():
            if name.startswith("SECURE_"):
                setattr(settings, name, value)
        client = AsyncClient()
        plain = await client.get("/api/conversations")
        secure = await client.get("/api/conversations", headers={"X-Forwarded-Proto": "https"})
        probe = await client.get("/healthz")

    assert (plain.status_code, plain.headers["Location"]) == (
        301,
        "https://testserver/api/conversations",
    )
    assert secure.status_code == 200
    assert "max-age=3600" in secure.headers["Strict-Transport-Security"]
    assert probe.status_code == 200
