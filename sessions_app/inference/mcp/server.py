"""One configured server: connected when it is needed, and again when it was lost."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ToolUnavailable
from ..tools import Arguments, Missing, Tool, ToolContext
from .config import McpServerConfig
from .listing import tools_of

if TYPE_CHECKING:
    from .connection import McpConnection

logger = logging.getLogger(__name__)

RETRY_FACTOR = 5
"""A list is asked for again after this many times what the failed attempt took: a server that is
slow to fail costs prompts little of their time. A call never waits for that."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A server's tools. `problem` says why they are missing, or may be out of date."""

    tools: tuple[Tool, ...]
    problem: str = ""


class McpServer:
    """Owns the connections to one server, one at a time in use, shared by all conversations.

    Belongs to one event loop, from its first use on.
    """

    def __init__(self, prefix: str, config: McpServerConfig) -> None:
        self.prefix = prefix
        self._config = config
        self._tools_of = partial(tools_of, prefix=prefix, config=config, call=self._call)
        self._connections: set[McpConnection] = set()
        """The one in use, and those that are closing."""
        self._current: McpConnection | None = None
        self._listing = Listing(())
        self._list_at = 0.0
        self._closing = False

    async def listing(self) -> Listing:
        """The tools as the server has them now; as they were, where it cannot be asked."""
        now = asyncio.get_running_loop().time
        began = now()
        if self._is_connected or began >= self._list_at:
            try:
                connection = await self._connected()
                self._listing = Listing(connection.tools)
            except ToolUnavailable as error:
                self._list_at = now() + RETRY_FACTOR * (now() - began)
                self._listing = Listing(self._listing.tools, str(error))
                logger.warning("%s", error)
        return self._listing

    def missing(self, why: str) -> Missing:
        """What is known of its tools when they are not there."""
        secrets = frozenset(self._config.secrets)
        return Missing(beginning=f"{self.prefix}_", why=why, secrets=secrets)

    async def aclose(self) -> None:
        """Ends all connections, and calls under way with them. There will be no other."""
        self._closing = True
        await asyncio.gather(*(connection.aclose() for connection in self._connections))

    @property
    def _is_connected(self) -> bool:
        return self._current is not None and not self._current.lost

    async def _call(self, name: str, arguments: Arguments, context: ToolContext) -> str:
        connection = await self._connected()
        if not await connection.alive():
            connection = await self._connected()
        return await connection.call(name, arguments, context)

    async def _connected(self) -> McpConnection:
        """The connection, made by whoever comes first. Raises ToolUnavailable."""
        if self._closing:
            raise ToolUnavailable(f"the MCP server {self.prefix!r} is being closed")
        if self._current is None or self._current.lost:
            from .connection import McpConnection

            self._current = McpConnection(self.prefix, self._config, self._tools_of)
            self._connections.add(self._current)
            self._current.task.add_done_callback(partial(self._forget, self._current))
        connection = self._current
        # Others may wait for it too: who gives up ends only his own waiting.
        await asyncio.shield(connection.ready)
        return connection

    def _forget(self, connection: McpConnection, _: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
