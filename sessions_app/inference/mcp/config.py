"""How a server is reached, and what policy its tools have. Values: imports no library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..errors import ConfigurationError
from ..packages import installed
from ..tool_text import masked

PACKAGES = ("fastmcp", "mcp")
INSTALL = "pip install -r requirements-mcp.txt"

MASKED_CHARS = 8
"""A shorter value cannot be told from an ordinary word, and is no secret."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,23}", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)


class McpServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server: a `command` that speaks MCP on its standard streams, or the `url` of one.

    `timeout` is for one call, `connect_timeout` for reaching the server; seconds. The other fields
    are those of Tool and hold for all tools of the server; `secrets` for each that has such an
    argument. Neither the repr nor any error shows a value that may be secret.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}
    timeout: Seconds = 30.0
    connect_timeout: Seconds = 10.0
    secrets: tuple[str, ...] = ()
    permission: str | None = None
    requires_approval: bool = False
    approval_permission: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec makes its own ValidationError."""
        if bool(self.command) == bool(self.url):
            got = "both" if self.url else "neither"
            raise ValueError(f"Expected either `command` or `url`, got {got}")
        if self.command and self.headers:
            raise ValueError("Expected `headers` with a `url` only, got them with a `command`")
        if self.url and (self.args or self.env):
            raise ValueError("Expected `args` and `env` with a `command` only, got a `url`")
        if self.url:
            _check_url(self.url)
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or not all(" " <= char <= "~" for char in value):
                raise ValueError(f"The header {name!r}, or its value, is none that can be sent")
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r}, or its value, is nothing that `env` can hold")

    def __repr__(self) -> str:
        given = [f"{name}=…" for name in self.__struct_fields__ if getattr(self, name)]
        return f"McpServerConfig({', '.join(given)})"

    def masked(self, text: str) -> str:
        """`text` without the values of `env` and `headers`, and without the address."""
        return masked(text, (each for each in self._hidden() if len(each) >= MASKED_CHARS))

    def _hidden(self) -> Iterator[str]:
        for value in (*self.env.values(), *self.headers.values()):
            yield value
            # "Bearer …": the token alone is a secret too.
            yield from value.split()
        yield self.url
        for _, value in parse_qsl(urlsplit(self.url).query):
            yield value


def _check_url(url: str) -> None:
    """Raises ValueError that does not repeat the address: people put keys into it."""
    try:
        parts = urlsplit(url)
        reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        raise ValueError("Expected `url` to be an http or https address") from None
    if not reachable:
        raise ValueError("Expected `url` to be an http or https address")
    if parts.username is not None or parts.fragment:
        raise ValueError("Expected `url` without user, password and fragment; use `headers`")


def require_packages() -> None:
    """Raises ConfigurationError if the library is not installed. Imports nothing."""
    for package in PACKAGES:
        if not installed(package):
            raise ConfigurationError(
                f"an MCP server needs the package {package}, which is not installed",
                hint=f"Install the client: {INSTALL}.",
            )


def check_prefixes(servers: Mapping[str, McpServerConfig], tools: tuple[str, ...]) -> None:
    """Raises ConfigurationError if a prefix is none, or a tool of another kind begins with one."""
    for prefix in servers:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"{prefix!r} cannot be the prefix of a tool's name",
                hint="Use a letter, then up to 23 letters, digits or '-'. An underscore ends it.",
            )
        for name in tools:
            if name.startswith(f"{prefix}_"):
                raise ConfigurationError(
                    f"the prefix {prefix!r} would claim the tool {name!r} of WEBCHAT['TOOLS']",
                    hint="Give the server another prefix.",
                )
