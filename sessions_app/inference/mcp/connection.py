"""One connection to an MCP server. Importing this imports the library, which takes seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context

# Or the library would send its log past Django's settings, at its import.
os.environ.setdefault("FASTMCP_LOG_ENABLED", "false")

import httpx2
import mcp_types
from fastmcp.client import Client
from fastmcp.client.transports import ClientTransport, StdioTransport, StreamableHttpTransport
from mcp.client.subscriptions import listen
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ..errors import ToolError, ToolUnavailable
from ..tool_text import bounded
from ..tools import Arguments, Tool, ToolContext
from ..traces import log_masked
from .config import McpServerConfig
from .results import text_of

logger = logging.getLogger(__name__)

EVENT_MAX_BYTES = 16 * 1024 * 1024
SAID_MAX_BYTES = 500
"""Of a server's own words in an error, a note or our log."""


class McpConnection:
    """A connection from its opening to its close, all of it in one task; made in an event loop.

    Any number may call at once. `lost` is true from the moment it is known to be of no more use:
    calls under way have their end, then it closes by itself.
    """

    def __init__(
        self,
        prefix: str,
        config: McpServerConfig,
        tools_of: Callable[[Sequence[mcp_types.Tool]], tuple[Tool, ...]],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.lost = False
        self.tools: tuple[Tool, ...] = ()
        """As listed at the opening, or since the server said that they changed."""
        self.ready: asyncio.Future[None] = loop.create_future()
        self._prefix = prefix
        self._config = config
        self._tools_of = tools_of
        self._calls = 0
        self._changed = False
        self._closing = False
        self._wake = asyncio.Event()
        self._status = 0
        self._client = Client(
            self._transport(),
            message_handler=self._on_message,
            log_handler=self._on_log,
            # The executor's timeout comes first; this one is for a request of the library's own.
            timeout=max(config.timeout, config.connect_timeout) + 1,
            client_info=mcp_types.Implementation(name="webchat", version="1"),
        )
        # A context of its own: it serves every conversation, and keeps nothing of the first one.
        self.task = loop.create_task(self._live(), name=f"mcp:{prefix}", context=Context())
        self.task.add_done_callback(lambda _: self._give_up("is being closed"))
        self._deadline = loop.call_later(config.connect_timeout, self._too_late)

    @property
    def _name(self) -> str:
        return f"the MCP server {self._prefix!r}"

    def retire(self) -> None:
        """Takes no more calls; closes once those under way have ended."""
        self.lost = True
        self._wake.set()

    async def aclose(self) -> None:
        """Ends the calls under way too, and waits for the close."""
        self.lost = True
        if not self._closing:
            self.task.cancel()
        await asyncio.wait({self.task})

    async def alive(self) -> bool:
        """Whether a call would reach the server, as far as can be known before it is made.

        A server that is busy with another call is not asked: it may answer one after the other.
        """
        if not self.lost and not self._calls and not self._is_modern:
            try:
                async with asyncio.timeout(self._config.connect_timeout):
                    await self._client.ping()
            except MCPError as error:
                if error.code != mcp_types.METHOD_NOT_FOUND:
                    self.retire()
            except Exception:  # noqa: BLE001 - whatever it was, there is no answer
                self.retire()
        return not self.lost

    async def call(self, name: str, arguments: Arguments, context: ToolContext) -> str:
        """What the tool says. Raises ToolError with what the server said, or ToolUnavailable when
        the connection was lost. Cancelling it tells the server.
        """

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            fraction = min(max(progress / total, 0.0), 1.0) if total else None
            context.progress(fraction, self._said(message or ""))

        self._calls += 1
        try:
            result = await self._client.call_tool_mcp(name, dict(arguments), progress_handler=tell)
        except Exception as error:  # noqa: BLE001 - each is a sentence the model can read
            raise self._failed(error) from None
        finally:
            self._calls -= 1
            self._wake.set()
        text = self._config.masked(text_of(result))
        if result.is_error:
            raise ToolError(text)
        return text

    def _failed(self, error: Exception) -> ToolError:
        """The error of a call; retires a connection that is no more."""
        is_over = isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED
        if is_over or not self._client.is_connected():
            self.retire()
            return ToolUnavailable(
                f"{self._name} was lost during the call; whether it was carried out is not known"
            )
        if isinstance(error, MCPError):
            return ToolError(f"{self._name} refused: {self._said(error.message)}")
        # The library holds a result against the schema that the server declared for it, and says in
        # its first line what is wrong.
        said = str(error).partition("\n")[0]
        return ToolError(f"{self._name} sent a result that is none: {self._said(said)}")

    async def _live(self) -> None:
        try:
            await self._client.__aenter__()
            self.tools = self._tools_of(await self._client.list_tools())
            self.ready.set_result(None)
            await self._serve()
        except Exception as error:  # noqa: BLE001 - it is told to all who wait
            self._give_up(self._why(error))
        finally:
            self.lost = self._closing = True
            self._deadline.cancel()
            # It repeats what the connection was lost by.
            with suppress(Exception):
                await self._client.close()

    def _too_late(self) -> None:
        """Ends an attempt to connect; nobody waits for the rest of it, which may take seconds."""
        if not self.ready.done():
            self._give_up(f"did not answer within {self._config.connect_timeout:g} seconds")
            self.task.cancel()

    def _give_up(self, why: str) -> None:
        """Tells those who wait, if it was not told yet."""
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ToolUnavailable(f"{self._name} {why}"))
            self.ready.exception()  # it need not be that anybody waits

    async def _serve(self) -> None:
        watch = asyncio.create_task(self._watch(), name=f"mcp-watch:{self._prefix}")
        try:
            while not self.lost or self._calls:
                await self._wake.wait()
                self._wake.clear()
                if self._changed and not self.lost:
                    self._changed = False
                    await self._list_again()
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    async def _list_again(self) -> None:
        try:
            self.tools = self._tools_of(await self._client.list_tools())
        except Exception:  # noqa: BLE001 - the next use connects anew, and says what is wrong
            self.retire()

    async def _watch(self) -> None:
        """Notices the end of a connection that nobody uses, and has changes told to us.

        Servers of the older protocol need nothing for the second, and are asked before each call.
        """
        if not self._is_modern:
            return
        try:
            async with listen(self._client.session, tools_list_changed=True) as changes:
                async for _ in changes:
                    self._list_soon()
        except MCPError as error:
            if error.code != mcp_types.CONNECTION_CLOSED:
                return  # it has no subscriptions
        except Exception as error:  # noqa: BLE001 - lost in whatever way
            logger.debug("MCP server %s: its changes end with %r", self._prefix, type(error))
        self.retire()

    def _list_soon(self) -> None:
        self._changed = True
        self._wake.set()

    async def _on_message(self, message: object) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._list_soon()

    async def _on_log(self, message: mcp_types.LoggingMessageNotificationParams) -> None:
        # It may speak of what it was asked, which belongs in no log that is kept.
        logger.debug("MCP server %s says: %s", self._prefix, self._said(str(message.data)))

    @property
    def _is_modern(self) -> bool:
        return self._client.protocol_version in MODERN_PROTOCOL_VERSIONS

    def _transport(self) -> ClientTransport:
        config = self._config
        if config.command:
            return StdioTransport(
                config.command, list(config.args), env=dict(config.env), keep_alive=False
            )
        return StreamableHttpTransport(
            config.url,
            headers=dict(config.headers),
            httpx_client_factory=self._http_client,
            max_sse_event_size=EVENT_MAX_BYTES,
        )

    def _http_client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
        **_: object,
    ) -> httpx2.AsyncClient:
        """What requests are made with. The library follows redirects within the origin only."""

        async def note_status(response: httpx2.Response) -> None:
            self._status = response.status_code

        hooks = {"response": [note_status]}
        return httpx2.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks=hooks)

    def _said(self, text: str) -> str:
        return bounded(self._config.masked(text), SAID_MAX_BYTES)

    def _why(self, error: Exception) -> str:
        """Why the connection could not be made, without what may be secret."""
        for each in _with_causes(error):
            match each:
                case MCPError(code=mcp_types.CONNECTION_CLOSED) if self._config.command:
                    return "ended before it had answered; the server's log may say why"
                case MCPError() if self._status >= 400:
                    return f"answered with HTTP {self._status}"
                case MCPError():
                    return f"refused: {self._said(each.message)}"
                case httpx2.TransportError():
                    return "cannot be reached at its address"
                case OSError() if self._config.command:
                    return f"cannot be started: {each.strerror or type(each).__name__}"
                case _:
                    pass
        trace = "".join(traceback.format_exception(error))
        log_masked(logger, self._config.masked(trace), "MCP server %s failed", self._prefix)
        return f"cannot be used: {type(error).__name__}"


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
