"""docs/promises.md names tests that exist, so that a sceptic can run them."""

from __future__ import annotations

import re

import pytest

from tests.live import ROOT

PAGE = (ROOT / "docs/promises.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_page_names_is_there(file: str, name: str):
    source = (ROOT / file).read_text()

    assert not name or re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)


def test_every_promise_of_the_design_has_its_row():
    design = (ROOT / "DESIGN.md").read_text()
    promises = re.findall(r"^(\d+)\. \*\*(.*?)\.?\*\*", design, re.MULTILINE)
    rows = re.findall(r"^\| \*\*(\d+)\. (.*?)\.?\*\*", PAGE, re.MULTILINE)

    assert promises
    assert [number for number, _ in rows] == [number for number, _ in promises]
