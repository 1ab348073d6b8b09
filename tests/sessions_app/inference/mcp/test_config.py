"""What WEBCHAT['MCP_SERVERS'] may say of a server, and what nobody is shown of it."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from sessions_app.inference.errors import ConfigurationError
from sessions_app.inference.mcp import McpServerConfig, check_prefixes, require_packages
from sessions_app.inference.tools import MASK

URL = "https://tools.example/mcp"
TOKEN = "tok-0123456789"


def config(**given: Any) -> McpServerConfig:
    return msgspec.convert(given, McpServerConfig)


@pytest.mark.parametrize(
    "given",
    [
        {"command": "npx"},
        {"command": "npx", "args": ("-y", "server"), "env": {"TOKEN": TOKEN}},
        {"url": "http://127.0.0.1:8000/mcp"},
        {"url": f"{URL}?key={TOKEN}", "headers": {"Authorization": f"Bearer {TOKEN}"}},
        {"url": URL, "timeout": 5, "connect_timeout": 1, "secrets": ("token",)},
    ],
)
def test_a_server_is_a_command_or_an_address(given: dict[str, Any]):
    for name, value in given.items():
        assert msgspec.to_builtins(config(**given))[name] == value


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, "got neither"),
        ({"command": "npx", "url": URL}, "got both"),
        ({"command": "npx", "headers": {"a": TOKEN}}, "`headers` with a `url` only"),
        ({"url": URL, "env": {"A": TOKEN}}, "`args` and `env` with a `command` only"),
        ({"url": URL, "args": [TOKEN]}, "`args` and `env` with a `command` only"),
        ({"url": f"ftp://{TOKEN}.example/"}, "http or https"),
        ({"url": f"https://:{TOKEN}"}, "http or https"),
        ({"url": f"https://host:{TOKEN}/"}, "http or https"),
        ({"url": f"https://anna:{TOKEN}@tools.example/"}, "use `headers`"),
        ({"url": f"{URL}#{TOKEN}"}, "without user, password and fragment"),
        ({"url": URL, "headers": {"a": f"{TOKEN}\r\nb: c"}}, "header 'a'"),
        ({"url": URL, "headers": {"a b": TOKEN}}, "header 'a b'"),
        ({"url": URL, "headers": {"a": 7}}, "Expected `str`, got `int`"),
        ({"command": "npx", "env": {"A=B": TOKEN}}, "'A=B'"),
        ({"command": "npx", "env": {"A": f"{TOKEN}\0"}}, "'A'"),
        ({"command": "npx", "timeout": 0}, "> 0.0"),
        ({"command": "npx", "comand": TOKEN}, "comand"),
    ],
)
def test_what_is_wrong_is_told_without_a_value(given: dict[str, Any], wrong: str):
    with pytest.raises(msgspec.ValidationError) as caught:
        config(**given)

    assert wrong in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_repr_names_what_is_set_and_shows_none_of_it():
    shown = repr(config(command="npx", args=[TOKEN], env={"TOKEN": TOKEN}))

    assert shown == "McpServerConfig(command=…, args=…, env=…, timeout=…, connect_timeout=…)"


def test_credentials_are_masked_in_what_a_server_says():
    at_an_address = config(url=f"{URL}?key={TOKEN}", headers={"Authorization": f'Bearer "{TOKEN}'})
    for said in (f'Bearer "{TOKEN}', f'"{TOKEN}', f'\\"{TOKEN}', f"{URL}?key={TOKEN}", TOKEN):
        assert at_an_address.masked(f"got {said}.") == f"got {MASK}."
    program = config(command="npx", args=["/srv/docs"], env={"TOKEN": TOKEN, "LEVEL": "info"})

    assert program.masked(f"info: {TOKEN} in /srv/docs") == f"info: {MASK} in /srv/docs"


@pytest.mark.parametrize("prefix", ["", "my_files", "1st", "-a", "ä", "a" * 25, "a b", "a.b"])
def test_a_prefix_is_a_word_without_an_underscore(prefix: str):
    with pytest.raises(ConfigurationError) as caught:
        check_prefixes({prefix: config(command="npx")}, ())

    assert repr(prefix) in str(caught.value)
    assert "An underscore ends it." in caught.value.hint


def test_a_prefix_may_not_claim_a_tool_that_is_no_servers():
    servers = {"files": config(command="npx"), "my": config(command="npx")}
    check_prefixes(servers, ("calc", "filesystem_list", "mine"))

    with pytest.raises(ConfigurationError, match="'my' would claim the tool 'my_account'"):
        check_prefixes(servers, ("calc", "my_account"))


@pytest.mark.parametrize("package", ["fastmcp", "mcp"])
def test_a_missing_library_is_told_with_what_to_install(monkeypatch, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=f"the package {package}, which is not") as caught:
        require_packages()

    assert "pip install -r requirements-mcp.txt" in caught.value.hint
