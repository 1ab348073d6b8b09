"""Proves webchat_project/runner.py: `manage.py test` is pytest under Django's name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from webchat_project.runner import pytest_target

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/webchat_project"


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("webchat_project", HERE),
        ("tests.webchat_project", HERE),
        ("tests.webchat_project.test_runner", f"{HERE}/test_runner.py"),
        ("tests.webchat_project.test_runner.test_x", f"{HERE}/test_runner.py::test_x"),
        ("webchat_project.test_runner.TestX.test_y", f"{HERE}/test_runner.py::TestX::test_y"),
        ("tests.webchat_project.test_runner.test_x[1.5]", f"{HERE}/test_runner.py::test_x[1.5]"),
        (f"{HERE}/test_runner.py", f"{HERE}/test_runner.py"),
        (f"{HERE}/test_runner.py::test_x[a/b::c]", f"{HERE}/test_runner.py::test_x[a/b::c]"),
        (HERE, HERE),
        (f"./{HERE}/", HERE),
    ],
)
def test_a_label_names_what_pytest_runs(label: str, target: str, monkeypatch):
    monkeypatch.chdir(ROOT)

    assert pytest_target(label) == f"{ROOT}/{target}"


@pytest.mark.parametrize(
    "label", ["", "tests.nowhere", "tests.webchat_project.test_x", "no/file.py"]
)
def test_a_label_that_names_nothing_is_an_error_that_says_what_would(label: str):
    with pytest.raises(CommandError, match=r"expected a dotted name such as .* or a path"):
        pytest_target(label)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "test_sample.py"
    path.write_text("def test_good(): pass\ndef test_bad(): raise ValueError\n")
    return path


def manage_test(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "test", *map(str, arguments)],
        capture_output=True,
        cwd=ROOT,
        # Without what the run that this test is part of was asked for.
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        text=True,
    )


def test_the_command_takes_djangos_options_and_ends_with_0_when_all_passes(sample: Path):
    options = ["-k", "good", "-k", "better", "--verbosity=2", "--failfast", "--keepdb", "--noinput"]

    run = manage_test(sample, *options)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "test_good PASSED" in run.stdout
    assert "1 passed, 1 deselected" in run.stdout


def test_the_command_ends_with_1_when_a_test_fails(sample: Path):
    run = manage_test(sample)

    assert run.returncode == 1
    assert "1 failed, 1 passed" in run.stdout


def test_the_command_ends_with_1_and_a_sentence_for_a_label_that_names_nothing():
    run = manage_test("tests.nowhere")

    assert run.returncode == 1
    assert "no tests under the label 'tests.nowhere'" in run.stderr
    assert "Traceback" not in run.stderr
