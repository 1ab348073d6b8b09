"""System checks of the session side: a wrong setting is told at start, with its fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shutil import which
from typing import Any

import msgspec
from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register

from .conf import SessionSettings, given, session_builder, session_settings
from .inference.engines.catalog import check_spec
from .inference.errors import ConfigurationError
from .inference.mcp import check_prefixes, require_packages
from .inference.packages import installed

TRACING_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


@register
def check_session_settings(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """WEBCHAT's session keys have the right types; profiles and models can be built."""
    errors: list[CheckMessage] = list(_wrong_values())
    if not errors:
        errors += _untraceable()
        errors += _duplicate_slugs()
        errors += _unusable_models()
        errors += _unusable_mcp_servers()
        errors += _unusable_profiles()
    return errors


def _wrong_values() -> Iterator[CheckMessage]:
    for field in msgspec.structs.fields(SessionSettings):
        key = field.encode_name
        if key not in given():
            if field.required:
                yield Error(
                    f"WEBCHAT[{key!r}] is missing.",
                    hint="Name at least one profile: {'slug': 'default'}.",
                    id="sessions_app.E001",
                )
            continue
        try:
            msgspec.convert(given()[key], field.type)
        except msgspec.ValidationError as error:
            yield Error(
                f"WEBCHAT[{key!r}] is wrong: {error}",
                hint=f"Expected {_described(field.type)}; see docs/settings.md.",
                id="sessions_app.E002",
            )


def _untraceable() -> Iterator[CheckMessage]:
    missing = [name for name in TRACING_PACKAGES if not installed(name)]
    if session_settings().tracing and missing:
        yield Error(
            f"WEBCHAT['TRACING'] is on, and {', '.join(missing)} cannot be imported.",
            hint="Install what it needs: pip install -r requirements-otel.txt.",
            id="sessions_app.E008",
        )


def _duplicate_slugs() -> Iterator[CheckMessage]:
    seen: set[str] = set()
    for profile in session_settings().profiles:
        if profile.slug in seen:
            yield Error(
                f"WEBCHAT['PROFILES'] names the profile {profile.slug!r} twice.",
                hint="Give each profile a slug of its own.",
                id="sessions_app.E003",
            )
        seen.add(profile.slug)


def _unusable_models() -> Iterator[CheckMessage]:
    conf = session_settings()
    try:
        own = conf.load_engines()
    except ConfigurationError:
        return  # told by _unusable_profiles
    for model in dict.fromkeys(profile.model for profile in conf.resolved_profiles()):
        try:
            check_spec(model, conf.credentials(), own)
        except ConfigurationError as error:
            yield Error(f"Model {model!r}: {error}", hint=error.hint, id="sessions_app.E004")


def _unusable_mcp_servers() -> Iterator[CheckMessage]:
    """Nobody is called: a server that does not answer is told when its tools are wanted."""
    conf = session_settings()
    if not conf.mcp_servers:
        return
    try:
        require_packages()
    except ConfigurationError as error:
        yield Error(f"WEBCHAT['MCP_SERVERS']: {error}", hint=error.hint, id="sessions_app.E006")
    try:
        check_prefixes(conf.mcp_servers, conf.load_tools().names)
    except ConfigurationError as error:
        yield Error(f"WEBCHAT['MCP_SERVERS']: {error}", hint=error.hint, id="sessions_app.E007")
    for prefix, server in conf.mcp_servers.items():
        if server.command and which(server.command) is None:
            yield Warning(
                f"WEBCHAT['MCP_SERVERS'][{prefix!r}]: its command is not found.",
                hint="Install it, or write its whole path. Its tools are missing until then.",
                id="sessions_app.W001",
            )


def _unusable_profiles() -> Iterator[CheckMessage]:
    conf = session_settings()
    try:
        conf.load_turn_store()
        conf.load_turn_persister()
        builder = session_builder(conf)
        for profile in conf.resolved_profiles():
            builder.check(profile)
    except ConfigurationError as error:
        yield Error(str(error), hint=error.hint, id="sessions_app.E005")


def _described(type_: Any) -> str:
    return str(getattr(type_, "__name__", type_)).removeprefix("typing.")
