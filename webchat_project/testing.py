"""The hub as the server wires it, in the process of a test. See docs/testing.md."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import import_module
from types import ModuleType

from channels.layers import get_channel_layer
from django.test import override_settings

from chat.apps import install
from chat.hub import Hub
from sessions_app.inference.engine import Engine
from sessions_app.inference.tools import Tool


def composition() -> ModuleType:
    """webchat_project.asgi. Its middleware wants a folder of static files; an empty one will do.

    Logging stays as it is: set up anew, it would take the handlers away from pytest's `caplog`.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        override_settings(STATIC_ROOT=folder, LOGGING_CONFIG=None),
    ):
        return import_module("webchat_project.asgi")


@asynccontextmanager
async def running_hub(
    *, engine: Engine | None = None, tools: Iterable[Tool] = ()
) -> AsyncIterator[Hub]:
    """A fresh hub of this event loop, as the settings say, installed for the block.

    `engine` answers in the place of every model. Each of `tools` takes the place of the one of its
    name. What runs at the end of the block is cancelled and waited for.
    """
    hub: Hub = composition().build_hub(engine=engine, tools=tools)
    install(hub)
    try:
        yield hub
    finally:
        await hub.aclose()
        install(None)
        layer = get_channel_layer()
        if layer is not None:
            await layer.flush()
