"""What the docs list is what there is: settings, variables, tasks, refusals, checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import msgspec

from chat import errors
from chat.conf import ChatSettings
from sessions_app.conf import SessionSettings
from sessions_app.profiles import Profile
from tests.docs.examples import PAGES, ROOT

SETTINGS = (ROOT / "docs/settings.md").read_text()
SOURCES = [
    path
    for folder in ("chat", "cluster", "sessions_app", "webchat_project")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
OF_COMMANDS = {"ask", "renew-login"}
"""Tasks of manage.py chat and manage.py sessions, which are no servers."""


def listed(text: str) -> set[str]:
    """The names in the first column of a page's tables."""
    cells = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def keys(*structs: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for each in structs for field in msgspec.structs.fields(each)}


def test_the_page_of_settings_has_every_key_and_no_other():
    _, environment, webchat, profiles, *_ = SETTINGS.split("\n## ")
    variables = re.findall(
        r'env\.\w+\(\s*"(\w+)"', (ROOT / "webchat_project/settings.py").read_text()
    )
    assert listed(environment) == set(variables)
    assert listed(webchat) == keys(ChatSettings, SessionSettings)
    assert listed(profiles) == keys(Profile)


def test_the_page_of_settings_says_the_defaults_that_are_numbers():
    table = SETTINGS.split("\n## ")[2]
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", table, re.MULTILINE)
    said = {
        name: default
        for names, defaults in rows
        for name, default in zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=False)
    }
    numbers = {
        field.encode_name: field.default
        for each in (ChatSettings, SessionSettings)
        for field in msgspec.structs.fields(each)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert {name: number_of(said[name]) for name in numbers} == numbers


def number_of(words: str) -> float:
    """What "10 000" or "4 MiB" means."""
    number = float(re.sub(r"[^\d.]", "", words))
    return number * 2**20 if words.endswith("MiB") else number


def tasks() -> Iterator[str]:
    """The names that the code gives to tasks, without what follows a colon."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="create_task"), keywords=words):
                    [name] = [word.value for word in words if word.arg == "name"]
                case ast.Call(func=ast.Attribute(attr="set_name"), args=[name]):
                    pass
                case _:
                    continue
            yield re.split("[:']", ast.unparse(name).removeprefix("f").strip("'"))[0]


def test_the_design_has_every_task_with_its_owner():
    table = (ROOT / "DESIGN.md").read_text().split("## Who owns which task")[1].split("\n## ")[0]
    names = {name.partition(":")[0] for name in listed(table)} - {"loop-watchdog"}
    assert names == set(tasks()) - OF_COMMANDS


def test_the_protocol_names_every_refusal_with_its_status():
    protocol = (ROOT / "docs/protocol.md").read_text()
    told = {
        (code, int(status))
        for line in protocol.splitlines()
        for status, after in re.findall(r"\b(\d{3})\b((?:(?!\b\d{3}\b).)*)", line)
        for code in re.findall(r"`([a-z_]+)`", after)
    }
    assert set(errors._STATUS.items()) - told == set()


def test_every_check_that_a_page_names_is_made():
    named = {id for page in PAGES for id in re.findall(r"`(\w+\.[EW]\d{3})`", page.read_text())}
    source = "".join(path.read_text() for path in SOURCES)
    assert named
    assert [id for id in sorted(named) if f'"{id}"' not in source] == []
