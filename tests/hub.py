"""The hub as the server wires it, in the process of a test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from types import ModuleType

from django.test import override_settings

from chat.apps import install
from chat.hub import Hub


def composition() -> ModuleType:
    """webchat_project.asgi. Its middleware wants a folder of static files; an empty one will do."""
    with tempfile.TemporaryDirectory() as folder, override_settings(STATIC_ROOT=folder):
        return import_module("webchat_project.asgi")


@asynccontextmanager
async def running_hub() -> AsyncIterator[Hub]:
    """A fresh hub of this event loop, installed for the block and closed at its end."""
    hub: Hub = composition().build_hub()
    install(hub)
    try:
        yield hub
    finally:
        await hub.aclose()
        install(None)
