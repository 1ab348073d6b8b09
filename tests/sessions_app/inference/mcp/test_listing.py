"""From what a server lists to tools that every provider takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import Tool as ListedTool

from sessions_app.inference.mcp import McpServerConfig
from sessions_app.inference.mcp.listing import legal_names, tools_of
from sessions_app.inference.tools import Arguments, Tool, ToolContext

OBJECT = {"type": "object", "properties": {"path": {"type": "string"}}}


def offered(*listed: ListedTool, **policy: Any) -> dict[str, Tool]:
    async def call(name: str, arguments: Arguments, context: ToolContext) -> str:
        return name

    tools = tools_of(listed, "files", McpServerConfig(command="npx", **policy), call)
    return {tool.name: tool for tool in tools}


def listed(name: str, schema: dict[str, Any] | None = None, **fields: Any) -> ListedTool:
    return ListedTool(name=name, input_schema=schema or OBJECT, **fields)


def test_the_policy_of_the_server_is_that_of_its_tools():
    tool = offered(
        listed("read", description="Read a file."),
        timeout=5.0,
        permission="files.view",
        requires_approval=True,
        approval_permission="files.approve",
        secrets=("path",),
    )["files_read"]

    assert tool.description == "Read a file."
    assert tool.parameters == OBJECT
    assert (tool.timeout, tool.permission) == (5.0, "files.view")
    assert tool.needs_approval({})
    assert tool.approval_permission == "files.approve"
    assert tool.secrets == {"path"}


def test_a_title_describes_a_tool_that_has_nothing_else():
    tools = offered(listed("read", title="Read a file"), listed("write"))

    assert tools["files_read"].description == "Read a file"
    assert tools["files_write"].description == ""


def test_a_tool_without_arguments_has_none():
    assert offered(listed("now", {"type": "object"}))["files_now"].parameters == {
        "type": "object",
        "properties": {},
    }


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({}, "have the type None; expected 'object'"),
        ({"type": "string"}, "have the type 'string'; expected 'object'"),
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, "'strnig' is not valid"),
        ({"type": "object", "properties": []}, "[] is not of type 'object'"),
        ({"type": "object", "$schema": []}, "unhashable"),
    ],
)
def test_a_tool_that_no_provider_would_take_is_left_out_and_the_log_says_why(
    caplog, schema: dict[str, Any], why: str
):
    bad = ListedTool(name="bad", input_schema=schema)

    assert list(offered(bad, listed("good"))) == ["files_good"]
    (record,) = caplog.records
    assert record.getMessage().startswith("tool 'bad' of MCP server files is left out: ")
    assert why in record.getMessage()


def test_a_schema_in_an_older_dialect_is_what_it_says():
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"pair": {"type": "array", "items": [{"type": "string"}]}},
    }

    assert list(offered(listed("tuple", schema))) == ["files_tuple"]


def test_names_that_are_taken_stay_and_others_are_made_so():
    assert legal_names("x", ["read_file", "a-b", "fs.read/v2"]) == {
        "read_file": "x_read_file",
        "a-b": "x_a-b",
        "fs.read/v2": "x_fs_read_v2",
    }


def test_two_names_that_would_be_one_are_told_apart():
    names = legal_names("x", ["a_b", "a.b", "a/b"])

    assert names["a_b"] == "x_a_b"
    assert re.fullmatch(r"x_a_b_[0-9a-f]{6}", names["a.b"])
    assert len(set(names.values())) == 3


@given(st.sets(st.text("ab._/", min_size=1, max_size=70), max_size=8))
def test_whatever_the_names_are_ours_are_legal_and_no_two_the_same(names: set[str]):
    ours = legal_names("x", sorted(names))

    assert ours.keys() == names
    assert len(set(ours.values())) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ours.values())
    assert ours == legal_names("x", sorted(names, reverse=True))
