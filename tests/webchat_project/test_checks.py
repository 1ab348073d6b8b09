"""Proves webchat_project/checks.py: a word that means nothing is told at start."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks


@pytest.mark.parametrize(
    ("name", "value", "id", "expected"),
    [
        ("LOG_FORMAT", "xml", "webchat_project.E001", "console, json"),
        ("LOG_LEVEL", "LOUD", "webchat_project.E002", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ],
)
def test_a_word_that_means_nothing_is_an_error_that_lists_those_that_do(
    settings, name: str, value: str, id: str, expected: str
):
    setattr(settings, name, value)
    [error] = run_checks()
    assert error.id == id
    assert repr(value) in error.msg
    assert expected in str(error.hint)
