"""`manage.py test`: the suite that pytest runs, under Django's name."""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path

from django.core.management.base import CommandError

ROOT = Path(__file__).resolve().parent.parent


class PytestRunner:
    """Runs pytest in a process of its own, so that nothing imported by Django changes a test.

    A label is a dotted name (`tests.chat.test_frames`, the test or class behind it too), the name
    of an app (`chat`), a folder, a file, or a pytest node (`tests/chat/test_frames.py::test_x`).
    """

    def __init__(
        self,
        *,
        verbosity: int = 1,
        failfast: bool = False,
        keepdb: bool = False,
        test_name_patterns: Sequence[str] | None = None,
        **_options: object,
    ) -> None:
        verbose = {0: ["-q"], 2: ["-v"], 3: ["-vv"]}
        self._options = [
            *verbose.get(verbosity, []),
            *(["--exitfirst"] if failfast else []),
            *(["--reuse-db"] if keepdb else []),
            *(["-k", " or ".join(test_name_patterns)] if test_name_patterns else []),
        ]

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        """Add the options of Django's own runner that mean something here."""
        parser.add_argument("--failfast", action="store_true", help="Stop at the first failure.")
        parser.add_argument("--keepdb", action="store_true", help="Keep the test database.")
        parser.add_argument(
            "-k", action="append", dest="test_name_patterns", help="Only tests whose names match."
        )

    def run_tests(self, test_labels: Iterable[str], **_extra: object) -> int:
        """Run what the labels name, or everything. Zero if all passed; CommandError for no such."""
        targets = [pytest_target(label) for label in test_labels]
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
        return subprocess.run(
            [*command, *self._options, *targets], cwd=ROOT, check=False
        ).returncode


def pytest_target(label: str) -> str:
    """Turn a label into what pytest takes. Raises CommandError if there is no such file."""
    dotted, bracket, case = label.partition("[")
    if not dotted.endswith(".py") and all(name.isidentifier() for name in dotted.split(".")):
        # `chat` means the tests of that app before it means its source.
        for place in (ROOT / "tests", ROOT):
            names = dotted.split(".")
            while names and (place / names[0]).is_dir():
                place /= names.pop(0)
            if names and (module := place / f"{names[0]}.py").is_file():
                return "::".join([str(module), *names[1:]]) + bracket + case
            if not names:
                return str(place)
    path, separator, node = label.partition("::")
    if path and Path(path).exists():
        return f"{Path(path).resolve()}{separator}{node}"
    raise CommandError(
        f"no tests under the label {label!r}; expected a dotted name such as "
        "tests.chat.test_frames, or a path such as tests/chat/test_frames.py::test_name"
    )
