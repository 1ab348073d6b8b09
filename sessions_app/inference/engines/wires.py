"""The wires we speak to models, and an endpoint of one of them. Values: imports no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection must stand."""

READ_TIMEOUT = 300.0
"""Seconds a provider may be silent, before its first byte and between two."""

WireName: TypeAlias = Literal["openai-chat", "anthropic", "google"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A provider's protocol: whose library speaks it, where it lives, which settings reach it."""

    name: WireName
    package: str
    base_url: str
    url_variable: str
    key_variable: str

    def is_own(self, base_url: str) -> bool:
        """Whether `base_url` is the provider's own service rather than a compatible one."""
        return urlsplit(base_url).hostname == urlsplit(self.base_url).hostname


WIRES: Mapping[str, Wire] = {
    wire.name: wire
    for wire in (
        Wire(
            name="openai-chat",
            package="openai",
            base_url="https://api.openai.com/v1",
            url_variable="OPENAI_BASE_URL",
            key_variable="OPENAI_API_KEY",
        ),
        Wire(
            name="anthropic",
            package="anthropic",
            base_url="https://api.anthropic.com",
            url_variable="ANTHROPIC_BASE_URL",
            key_variable="ANTHROPIC_API_KEY",
        ),
        Wire(
            name="google",
            package="google.genai",
            base_url="https://generativelanguage.googleapis.com",
            url_variable="GOOGLE_BASE_URL",
            key_variable="GEMINI_API_KEY",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One model at one address. Holds the key; its repr does not show it."""

    wire: Wire
    model: str
    base_url: str
    api_key: str = field(default="", repr=False)
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT

    @property
    def name(self) -> str:
        return f"{self.wire.name}:{self.model}"

    @property
    def is_own(self) -> bool:
        return self.wire.is_own(self.base_url)
