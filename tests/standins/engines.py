"""A provider's engine at a stand-in, on any of the three wires."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sessions_app.inference.engines.provider import ProviderEngine
from sessions_app.inference.engines.wires import WIRES, Endpoint

from .anthropic_server import anthropic_server
from .google_server import google_server
from .http import PATIENCE, StandIn
from .openai_server import openai_server

KEY = "sk-test-0123456789abcdefghijklmnop"


@asynccontextmanager
async def engine_at(
    url: str,
    wire: str = "openai-chat",
    *,
    key: str = KEY,
    model: str = "stand-in",
    connect_timeout: float = PATIENCE,
    read_timeout: float = PATIENCE,
) -> AsyncIterator[ProviderEngine]:
    endpoint = Endpoint(
        wire=WIRES[wire],
        model=model,
        base_url=url,
        api_key=key,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
    )
    engine = ProviderEngine(endpoint)
    try:
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def provider(
    wire: str, *, read_timeout: float = PATIENCE
) -> AsyncIterator[tuple[StandIn, ProviderEngine]]:
    """A stand-in of `wire`, and an engine that speaks to it."""
    servers = {
        "openai-chat": openai_server,
        "anthropic": anthropic_server,
        "google": google_server,
    }
    async with servers[wire]() as server:
        url = f"{server.url}/v1" if wire == "openai-chat" else server.url
        async with engine_at(url, wire, read_timeout=read_timeout) as engine:
            yield server, engine
