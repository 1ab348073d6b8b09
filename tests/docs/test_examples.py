"""Every example of the documentation runs as it stands, with the settings its page gives."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import re
import sys
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import async_solipsism
import pytest
from django.apps import AppConfig
from django.core.checks import run_checks

from chat.app_kinds import default_kinds
from sessions_app.inference.middleware import default_registry
from tests.docs.examples import PAGES, ROOT, Example, examples, importing

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _registries_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app registers for good; an example for its page."""
    monkeypatch.setattr(default_registry, "_entries", dict(default_registry._entries))
    monkeypatch.setattr(default_kinds, "_kinds", dict(default_kinds._kinds))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_a_page_runs(
    page: Path, request: pytest.FixtureRequest, settings, monkeypatch: pytest.MonkeyPatch
):
    """Modules first, as Python finds them on disk wherever they stand; then the rest in its order.

    A block that names WEBCHAT is settings: they are checked as at start, and hold from there on.
    """
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with importing() as imported:
        blocks = examples(page)
        for example in (block for block in blocks if is_module(block)):
            get_ready(imported(example))
        for example in (block for block in blocks if not is_module(block)):
            before = deepcopy(settings.WEBCHAT)
            module = imported(example, WEBCHAT=deepcopy(before))
            if before != module.WEBCHAT:
                settings.WEBCHAT = {**before, **module.WEBCHAT}
                wrong = [each for each in run_checks() if "E" in str(each.id).partition(".")[2]]
                assert wrong == [], f"{page.name}:{example.line}"
            for test in written_tests(module):
                run(test, request)


def is_module(example: Example) -> bool:
    """Whether others import it."""
    return "." in example.module_name and ".test_" not in example.module_name


def get_ready(module: ModuleType) -> None:
    """Does for an app what Django does at start."""
    for found in vars(module).values():
        if isinstance(found, type) and found is not AppConfig and issubclass(found, AppConfig):
            found(found.name, module).ready()


def written_tests(module: ModuleType) -> list[Any]:
    return [value for name, value in vars(module).items() if name.startswith("test_")]


def run(test: Any, request: pytest.FixtureRequest) -> None:
    """Calls a test with the fixtures it names, in virtual time if it is a coroutine."""
    given = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    if not inspect.iscoroutinefunction(test):
        test(**given)
        return
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(test(**given))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_json_in_a_page_is_json(page: Path):
    for block in re.findall(r"^```json\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        json.loads(block.replace("…", ""))


LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "DESIGN.md"], ids=lambda page: page.stem
)
def test_every_link_leads_somewhere(page: Path):
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Headings as GitHub links to them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_names_every_page():
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if f"docs/{page.name}" not in readme] == []


IMAGE = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<path>[^)]+\.png)\)")
# By name, as `make screenshots` runs it: to the type checker it is a script outside of packages.
screenshots = import_module("scripts.screenshots")


def test_every_picture_is_one_of_the_script_shown_somewhere_described_and_small():
    taken = {path: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    shown = {
        (page.parent / image["path"]).resolve(): image["words"]
        for page in (*PAGES, ROOT / "README.md")
        for image in IMAGE.finditer(page.read_text())
    }

    assert {path.name for path in taken} == {f"{name}.png" for name in screenshots.SCENES}
    assert set(taken) == set(shown)
    assert all(shown.values())
    assert max(taken.values()) <= screenshots.LARGEST
    assert sum(taken.values()) < 1_000_000
