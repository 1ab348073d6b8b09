"""All configured servers, and the tools of them that a profile allows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

from ..errors import ConfigurationError, unknown
from ..events import Log, publish
from ..tools import Missing, ToolRegistry, ToolSource, allows
from .config import McpServerConfig
from .server import McpServer

logger = logging.getLogger(__name__)


class McpServers:
    """The servers by the prefix of their tools' names. Nothing is connected before it is needed."""

    def __init__(self, configs: Mapping[str, McpServerConfig] | None = None) -> None:
        self._servers = {
            prefix: McpServer(prefix, config) for prefix, config in (configs or {}).items()
        }

    def prepare(self) -> None:
        """Imports the library now, if there is a server: it takes seconds."""
        if self._servers:
            import_module(f"{__package__}.connection")

    def allowed(self, tools: ToolRegistry, names: Sequence[str]) -> ToolSource:
        """The tools of an allow list: of `tools`, and of servers, as `prefix_name` or `prefix_*`.

        Raises ConfigurationError for a name that can be neither. Which tools a server has is known
        only once it was asked; one that it has not is told in the log then.
        """
        own = []
        used: dict[str, McpServer] = {}
        for name in names:
            prefix, _, rest = name.partition("_")
            if prefix in self._servers and rest:
                used[prefix] = self._servers[prefix]
            elif tools.get(name) is not None:
                own.append(name)
            else:
                known = (*tools.names, *(f"{prefix}_*" for prefix in self._servers))
                raise ConfigurationError(
                    unknown("tool", name, known), hint="Register the tool, or leave it out."
                )
        chosen = tools.only(own)
        return _Allowed(chosen, used.values(), names) if used else chosen

    def unlisted(self) -> Sequence[Missing]:
        """What is known of all servers' tools when nobody has asked for them."""
        return [server.missing("it was not asked for") for server in self._servers.values()]

    async def aclose(self) -> None:
        """Ends all connections. No inference may be running."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))


class _Allowed:
    """A ToolSource: an allow list that has tools of servers on it."""

    def __init__(
        self, own: ToolRegistry, servers: Iterable[McpServer], names: Sequence[str]
    ) -> None:
        self._own = own
        self._servers = tuple(servers)
        self._names = tuple(names)
        self._told: set[str] = set()

    async def current(self) -> ToolRegistry:
        """Asks all servers at once. The people are told of one that does not answer."""
        listings = await asyncio.gather(*(server.listing() for server in self._servers))
        tools = list(self._own)
        missing = []
        for server, listing in zip(self._servers, listings, strict=True):
            allowed = [tool for tool in listing.tools if allows(self._names, tool.name)]
            tools += allowed
            if listing.problem:
                missing.append(server.missing(listing.problem))
                publish(
                    Log(
                        level="warning",
                        message=f"Tools may be missing: {listing.problem}.",
                        fields={"mcpServer": server.prefix},
                    )
                )
            else:
                self._tell_absent(server, {tool.name for tool in allowed})
        return ToolRegistry(tools, missing=missing)

    def _tell_absent(self, server: McpServer, listed: set[str]) -> None:
        """Says once of each name on the allow list that the server has no such tool."""
        for name in self._names:
            is_its_own = name.startswith(f"{server.prefix}_") and not name.endswith("_*")
            if is_its_own and name not in listed | self._told:
                self._told.add(name)
                logger.warning("MCP server %s has no tool %r", server.prefix, name)
