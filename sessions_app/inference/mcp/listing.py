"""From what a server lists to our Tools, under names that every provider takes."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from ..errors import ConfigurationError
from ..tools import Arguments, Tool, ToolContext
from .config import McpServerConfig

if TYPE_CHECKING:
    from mcp_types import Tool as ListedTool

logger = logging.getLogger(__name__)

NAME_CHARS = 64
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)

Call: TypeAlias = Callable[[str, Arguments, ToolContext], object]
"""Makes a call to a tool by the name the server has for it."""


def tools_of(
    listed: Iterable[ListedTool], prefix: str, config: McpServerConfig, call: Call
) -> tuple[Tool, ...]:
    """The listed tools with the server's policy. One that cannot be offered is left out, and the
    log says why: a provider would refuse every request with it.
    """
    by_name = {each.name: each for each in listed}
    names = legal_names(prefix, tuple(by_name))
    tools: dict[str, Tool] = {}
    for name, each in by_name.items():
        try:
            _check(each.input_schema)
            tools[names[name]] = _tool(each, names[name], config, partial(call, name))
        except Exception as error:  # noqa: BLE001 - it must not cost the other tools
            said = error.message if isinstance(error, SchemaError) else str(error)
            logger.warning("tool %r of MCP server %s is left out: %s", name, prefix, said)
    known = {argument for tool in tools.values() for argument in tool.parameters["properties"]}
    for secret in sorted(set(config.secrets) - known):
        logger.warning("no tool of MCP server %s has the secret argument %r", prefix, secret)
    return tuple(tools.values())


def legal_names(prefix: str, names: Sequence[str]) -> Mapping[str, str]:
    """`prefix_name` for each name, in what all providers take; no two are the same.

    A name that had to be changed, and then is another one's, ends in six digits of its own.
    """
    room = NAME_CHARS - len(prefix) - 1
    short = {name: _NOT_IN_A_NAME.sub("_", name)[:room] for name in names}
    count = Counter(short.values())
    for name, shown in short.items():
        if shown != name and count[shown] > 1:
            short[name] = f"{shown[: room - 7]}_{sha256(name.encode()).hexdigest()[:6]}"
    return {name: f"{prefix}_{shown}" for name, shown in short.items()}


def _tool(
    listed: ListedTool,
    name: str,
    config: McpServerConfig,
    call: Callable[[Arguments, ToolContext], object],
) -> Tool:
    parameters = {"properties": {}, **listed.input_schema}
    return Tool(
        name=name,
        description=listed.description or listed.title or "",
        parameters=parameters,
        call=call,
        timeout=config.timeout,
        secrets=frozenset(config.secrets).intersection(parameters["properties"]),
        permission=config.permission,
        requires_approval=config.requires_approval,
        approval_permission=config.approval_permission,
    )


def _check(schema: dict[str, Any]) -> None:
    """Raises SchemaError, or ConfigurationError for a schema of something else than an object."""
    if schema.get("type") != "object":
        raise ConfigurationError(
            f"its arguments have the type {schema.get('type')!r}; expected 'object'",
            hint="Have the server list an object's schema.",
        )
    validator_for(schema, default=Draft202012Validator).check_schema(schema)
