"""MCP servers as sources of tools. Needs `fastmcp-slim[client]`, and only where one is configured.

Importing this package imports no library, starts no process and connects to nobody.
"""

from .config import McpServerConfig, check_prefixes, require_packages
from .servers import McpServers

__all__ = ["McpServerConfig", "McpServers", "check_prefixes", "require_packages"]
