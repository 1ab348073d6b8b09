"""A real MCP server, on the library that servers are made with. A program:

    python -m tests.standins.mcp_server                 on its standard streams
    python -m tests.standins.mcp_server --port PORT     at http://127.0.0.1:PORT/mcp

With ERA=legacy in its environment, or in the header `era` of a request, it knows only the protocol
with a handshake and sessions, as most servers do.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import mcp_types
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.utilities.types import Image
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field

Asked: TypeAlias = Context[Any, Any]

PIXELS = b"\x89PNG" + bytes(996)
IS_LEGACY = os.environ.get("ERA") == "legacy"

begun: list[str] = []
cancelled: list[str] = []


async def oddly(ctx: Any, call_next: Any) -> Any:
    """Refuses the newer protocol's first request as a server does that has not heard of it, and
    has one tool break its promise.
    """
    headers: Mapping[str, str] = ctx.request.headers if ctx.request else {}
    if ctx.method == "server/discover" and headers.get("era") == "legacy":
        raise MCPError(mcp_types.METHOD_NOT_FOUND, "Method not found")
    result = await call_next(ctx)
    if ctx.method == "tools/call" and ctx.params["name"] == "lie":
        result["structuredContent"] = {"x": "not a number", "y": 2}
    return result


server = MCPServer("stand-in", middleware=[oddly], log_level="CRITICAL")


class Point(BaseModel):
    x: int
    y: int


@server.tool(structured_output=False)
def echo(text: str, token: str = "") -> str:
    """Say it again."""
    return text + token


@server.tool(name="points/swap.v2")
def swap(x: int, y: Annotated[int, Field(ge=0)]) -> Point:
    """Swap the numbers of a point."""
    return Point(x=y, y=x)


@server.tool()
def lie() -> Point:
    """Promise a point, and give something else."""
    return Point(x=1, y=2)


@server.tool()
def fail(why: str) -> str:
    """Fail, and say why."""
    raise ToolError(why)


@server.tool()
def crash() -> str:
    """End the process in the middle of the call."""
    os._exit(3)


@server.tool(structured_output=False)
def picture() -> list[Any]:
    """Words, and a picture."""
    return ["a dot", Image(data=PIXELS, format="png")]


@server.tool()
async def wait(seconds: float, name: str, asked: Asked) -> str:
    """Take a while, and tell how far it is."""
    begun.append(name)
    await asked.report_progress(1, 4, f"{name} began")
    await asked.warning(f"{name} may take long")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        cancelled.append(name)
        raise
    return f"{name} is done"


@server.tool()
def waits() -> dict[str, list[str]]:
    """Which calls of `wait` began, and which were cancelled."""
    return {"begun": begun, "cancelled": cancelled}


@server.tool()
def process() -> int:
    """The number of the process."""
    return os.getpid()


@server.tool()
def reveal(name: str, asked: Asked) -> str:
    """What this server was given under that name, in its environment or as a header."""
    return os.environ.get(name) or (asked.headers or {}).get(name) or "nothing"


@server.tool()
async def learn(name: str, asked: Asked) -> str:
    """Offer one more tool from now on, and say so."""
    server.add_tool(echo, name=name)
    if asked.protocol_version in MODERN_PROTOCOL_VERSIONS:
        await asked.notify_tools_changed()
    else:
        await asked.session.send_tool_list_changed()
    return "learnt"


async def serve_streams() -> None:
    if not IS_LEGACY:
        await server.run_stdio_async()
        return
    inner = server._lowlevel_server
    async with stdio_server() as (read, write), inner.lifespan(inner) as state:
        await serve_loop(inner, read, write, lifespan_state=state)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    port = parser.parse_args().port
    logging.disable()
    if port is None:
        asyncio.run(serve_streams())
    else:
        uvicorn.run(server.streamable_http_app(), port=port, log_level="critical")


if __name__ == "__main__":
    main()
