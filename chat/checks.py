"""System checks of the transport: a wrong setting is told at start, with its fix."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from django.apps import AppConfig, apps
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage, Error, Warning, register
from django.template.loader import render_to_string

from .app_kinds import default_kinds
from .conf import ChatSettings, chat_settings, given


@register
def check_chat_settings(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """WEBCHAT holds only known keys, and the transport's are right."""
    return [*_unknown_keys(), *_wrong_values(), *_weak_token()]


def _unknown_keys() -> Iterator[CheckMessage]:
    known = sorted(
        field.encode_name
        for config in apps.get_app_configs()
        if (keys := getattr(config, "webchat_settings", None)) is not None
        for field in msgspec.structs.fields(keys())
    )
    for key in given():
        if key not in known:
            near = get_close_matches(str(key).upper(), known, n=1)
            meant = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
            yield Error(f"WEBCHAT has an unknown key {key!r}.", hint=meant, id="chat.E001")


def _wrong_values() -> Iterator[CheckMessage]:
    for field in msgspec.structs.fields(ChatSettings):
        key = field.encode_name
        if key not in given():
            continue
        try:
            msgspec.convert(given()[key], field.type)
        except msgspec.ValidationError as error:
            yield Error(
                f"WEBCHAT[{key!r}] is wrong: {error}",
                hint=f"Leave it out for the default, {field.default!r}.",
                id="chat.E002",
            )


def _weak_token() -> Iterator[CheckMessage]:
    token = given().get("METRICS_TOKEN", "")
    if not isinstance(token, str) or token == "" or _SENDABLE_TOKEN.fullmatch(token):
        return
    yield Error(
        "WEBCHAT['METRICS_TOKEN'] is too short, or holds what no Authorization header can carry.",
        hint="Use 16 or more of the visible ASCII characters, as `openssl rand -hex 24` prints.",
        id="chat.E003",
    )


_SENDABLE_TOKEN = re.compile(r"[!-~]{16,}")


@register
def check_descriptors(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The system lets this process open as many files as its sockets, and their clients, need."""
    try:
        needed = 2 * chat_settings().sockets_per_process
    except msgspec.ValidationError:
        return []  # said above
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return []
    return [
        Warning(
            f"This process may open {allowed} files, which is below {needed}, twice "
            "WEBCHAT['SOCKETS_PER_PROCESS'].",
            hint=f"Raise the hard limit (LimitNOFILE={needed} in a systemd unit, ulimit -Hn), or "
            "lower SOCKETS_PER_PROCESS.",
            id="chat.W001",
        )
    ]


@register
def check_app_kinds(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The templates and static files of the kinds that apps have registered are there."""
    return [*_unusable_templates(), *_missing_files()]


def _unusable_templates() -> Iterator[CheckMessage]:
    for kind in default_kinds:
        if not kind.template:
            continue
        try:
            render_to_string(kind.template, {"props": {}})
        except Exception as error:  # noqa: BLE001 - an app's template, and what it calls
            yield Error(
                f"The template {kind.template!r} of the kind {kind.kind!r} cannot be drawn without "
                f"props: {type(error).__name__}: {error}",
                hint="Correct its name, or what is in it: the browser fills a copy of it.",
                id="chat.E004",
            )


def _missing_files() -> Iterator[CheckMessage]:
    for kind in default_kinds:
        for path in filter(None, (kind.module, kind.style)):
            if finders.find(path) is None:
                yield Error(
                    f"The kind {kind.kind!r} names {path!r}, which is no static file.",
                    hint="Name it as {% static %} does: a path below an app's static folder.",
                    id="chat.E005",
                )
